"""How far a head is turned, from five landmarks; how it nods and leans, from fourteen of dlib's 68."""

from collections.abc import Sequence

NOSE_DEG = 117.0
EYES_DEG = 170.0

MODEL: dict[int, tuple[float, float, float]] = {
    17: (-6.825897, 6.760612, 4.402142),
    21: (-1.330353, 7.122144, 6.903745),
    22: (1.330353, 7.122144, 6.903745),
    26: (6.825897, 6.760612, 4.402142),
    36: (-5.311432, 5.485328, 3.987654),
    39: (-1.789930, 5.393625, 4.413414),
    42: (1.789930, 5.393625, 4.413414),
    45: (5.311432, 5.485328, 3.987654),
    31: (-2.005628, 1.409845, 6.165652),
    35: (2.005628, 1.409845, 6.165652),
    48: (-2.774015, -2.080775, 5.048531),
    54: (2.774015, -2.080775, 5.048531),
    57: (0.0, -3.116408, 6.097667),
    8: (0.0, -7.415691, 4.070434),
}
"""Number of the landmark → its place on a mean head, in cm: x to the picture's right, y up, z towards the viewer. Brows, eyes,
wings of the nose, mouth, chin: the anthropometric model of the University of Coimbra (glAnthropometric3DModel; Martins and
Batista), with the points that lincolnhard/head-pose-estimation takes of it."""

DISTANCE = 20.0
"""From the camera to the face, in sizes of the face: a metre. If it was 40 cm, or far away, angles of 40° are off by 3°, or by 1°."""


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


def pose_deg(landmarks: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Yaw, pitch and roll of a head in degrees, from OpenCV's solvePnP on a mean head.

    Yaw is positive when the nose points to the picture's right, pitch when it points up, roll when the head leans to the
    picture's right. The head first nods, then turns, then leans (R = roll · yaw · pitch). Roll is good to 2°. Pitch is
    that of a mean head: a long chin or an open mouth adds up to some 10° to all photos of a person, so
    compare it with that person's others.

    Args:
        landmarks: dlib's 68, (x, y).
    """
    import cv2
    import numpy as np
    from scipy.spatial.transform import Rotation

    model = np.array([(x, -y, -z) for x, y, z in MODEL.values()])  # 14×3, in the camera's axes: right, down, away
    model -= model.mean(0)
    points = np.asarray(landmarks, dtype=np.float64)[list(MODEL)]  # 14×2
    points -= points.mean(0)
    size = float(np.sqrt((points**2).sum(1).mean()))
    if size == 0:
        return 0.0, 0.0, 0.0
    camera = np.diag([DISTANCE, DISTANCE, 1.0])
    # The way there begins at a face that looks into the camera: without it, the solution may be a head behind the camera.
    away = np.array([0.0, 0.0, DISTANCE * float(np.sqrt((model[:, :2] ** 2).sum(1).mean()))])
    turn = cv2.solvePnP(model, points / size, camera, None, np.zeros(3), away, True, cv2.SOLVEPNP_ITERATIVE)[1]
    roll, yaw, pitch = Rotation.from_rotvec(np.asarray(turn).ravel()).as_euler("ZYX", degrees=True)
    return round(float(-yaw), 1), round(float(-pitch), 1), round(float(roll), 1)
