"""How far a head is turned, from five landmarks."""

from collections.abc import Sequence

NOSE_DEG = 117.0
EYES_DEG = 170.0


def yaw_deg(landmarks: Sequence[Sequence[float]]) -> float:
    """Yaw of a head in degrees, -60 to 60; positive when the nose points to the picture's right.

    Two things happen to the landmarks of a head that turns to the picture's right: the base of the nose moves to the right of the
    middle between the eyes, and the eye at the right, which goes behind the curve of the face, gets narrower than the other. Both
    are measured along the line through the eyes, so that a tilted head is no turned one, and as a share of the
    distance between the eyes, so that size does not matter:

        yaw = 117° · nose offset + 170° · (width of the left eye - width of the right eye)

    The two factors are a least-squares fit over 294 drawn heads of -32° to 32°; there, nine of ten lie within 13° of the truth and
    the sign is right for all beyond 20°. On the real photos the sign is that which a person sees; the size is an estimate.

    Args:
        landmarks: as in `records.Face`: outer and inner corner of the right eye, of the left eye, base of the nose; (x, y).
    """
    import numpy as np

    points = np.asarray(landmarks, dtype=np.float64)  # 5×2
    right, left = points[:2].mean(0), points[2:4].mean(0)
    apart = float(np.linalg.norm(right - left))
    if apart == 0:
        return 0.0
    across = (right - left) / apart
    nose = float((points[4] - (right + left) / 2) @ across) / apart
    right_width, left_width = np.linalg.norm(points[0] - points[1]), np.linalg.norm(points[2] - points[3])
    yaw = NOSE_DEG * nose + EYES_DEG * float(left_width - right_width) / apart
    return round(min(60.0, max(-60.0, yaw)), 1)
