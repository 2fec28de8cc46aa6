"""Whose face is which: the subject's, a stranger's, or too unsure to say."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lora_pipeline.manifest import is_planning, key_of, read, write
from lora_pipeline.records import KNOWN_ONLY, Face, Row
from lora_pipeline.stages.crop.search import faces_of

DECIDED = "decided"
UNSURE = 1.15
"""Up to so many times `same_person_distance`, a face may still be the subject's."""

Faces = Mapping[str, tuple[Face, ...]]
"""A photo's id → its faces."""


def decide(faces: Faces, same_person_distance: float, reference: Sequence[float] | None) -> dict[str, tuple[Face, ...]]:
    """Say of each face whose it is.

    The subject is the person on the reference photo; without one, the person who is in the most photos, or, where the photo
    library knows some faces, in the most of those. That person is found as the face that is near (`same_person_distance`) to
    faces in the most photos; where two faces tie, the one of whom there is more to see, then the one nearer to its like. From
    it, and the nearest face of each of those photos, comes the centre: the mean of their descriptors, which is surer than any
    one of them. At most one face a photo, the nearest to the centre, is the subject's, if it is near. All others are
    strangers, but for those near or nearly near (1.15 times) to the centre, which are unsure: a twin, a mirror, a bad angle.
    Who hides strangers hides these too.

    Where the photo library knows the subject's face, that one is it, however far from the centre; of two such in one photo the
    nearer. A face that only the library knows and the detector did not find (turned away, half hidden) says nothing of the
    centre, if there are others: its landmarks, and so its descriptor, are a guess.

    Args:
        faces: of each photo; an order of the photos or faces makes no difference.
        same_person_distance: Euclidean, between descriptors.
        reference: descriptor of the face on the reference photo.

    Returns:
        The same faces in the same order, with `whose`.
    """
    flat = sorted((photo, number) for photo in faces for number in range(len(faces[photo])))
    if not flat:
        return dict(faces)
    descriptors = np.array([faces[photo][number].descriptor for photo, number in flat])  # faces × 128
    known = [index for index, (photo, number) in enumerate(flat) if faces[photo][number].known]
    photos = np.unique([photo for photo, _ in flat], return_inverse=True)[1]  # a number a face
    if reference is not None:
        centre = np.asarray(reference, dtype=np.float64)
    else:
        areas = np.array([_area(faces[photo][number]) for photo, number in flat])
        telling = [index for index in known if faces[flat[index][0]][flat[index][1]].confidence > KNOWN_ONLY] or known
        some = np.array(telling or range(len(flat)))
        centre = _most_seen(descriptors[some], photos[some], areas[some], same_person_distance)
    distances = np.linalg.norm(descriptors - centre, axis=1)
    decided = {photo: list(faces[photo]) for photo in faces}
    # A known face goes before all others of its photo.
    nearest = _nearest_a_photo(np.where(np.isin(np.arange(len(flat)), known), distances - 1e3, distances), photos)
    for index, (photo, number) in enumerate(flat):
        if index in nearest and (index in known or distances[index] <= same_person_distance):
            whose = "subject"
        # A second known one in a photo is a mirror, or a picture on the wall.
        elif index in known or distances[index] <= UNSURE * same_person_distance:
            whose = "unsure"
        else:
            whose = "stranger"
        decided[photo][number] = replace(decided[photo][number], whose=whose)
    return {photo: tuple(found) for photo, found in decided.items()}


def _most_seen(
    descriptors: "np.ndarray[tuple[int, int], np.dtype[np.float64]]",
    photos: "np.ndarray[tuple[int], np.dtype[np.intp]]",
    areas: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    near: float,
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Centre of the person who is in the most photos."""
    ranks: list[tuple[int, float, float, int]] = []
    for index, descriptor in enumerate(descriptors):
        distances = np.linalg.norm(descriptors - descriptor, axis=1)
        like = [other for other in _nearest_a_photo(distances, photos) if distances[other] <= near]
        ranks.append((len(like), round(float(areas[like].sum()), 1), -float(distances[like].mean()), -index))
    medoid = -max(ranks)[3]
    distances = np.linalg.norm(descriptors - descriptors[medoid], axis=1)
    like = [other for other in _nearest_a_photo(distances, photos) if distances[other] <= near]
    return descriptors[sorted(like)].mean(0)


def _nearest_a_photo(
    distances: "np.ndarray[tuple[int], np.dtype[np.float64]]", photos: "np.ndarray[tuple[int], np.dtype[np.intp]]"
) -> set[int]:
    """Index of the nearest face of each photo."""
    order = np.lexsort((distances, photos))
    first = np.unique(photos[order], return_index=True)[1]
    return {int(index) for index in order[first]}


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def write_decided(folder: Path, faces: Faces) -> None:
    """Leave the decision as the table `decided`, a row a photo. Writes nothing while planning, or if it stands there already."""
    rows = [
        Row(photo, key_of(data := [face.data() for face in found]), data={"faces": data})
        for photo, found in sorted(faces.items())
    ]
    before = [(row.id, row.key) for row in read(folder, DECIDED).rows]
    if not is_planning() and before != [(row.id, row.key) for row in rows]:
        write(folder, rows, DECIDED)


def decided_faces(folder: Path) -> dict[str, tuple[Face, ...]]:
    """Photo id → its faces and whose they are, as the stage last decided; empty if it has not run."""
    return {row.id: faces_of(row) for row in read(folder, DECIDED).rows}


def subject_descriptors(folder: Path, photos: Collection[str] | None = None) -> list[tuple[float, ...]]:
    """Descriptors of all faces that are the subject's (in some photos only, if ids are given), in order of the photos' ids, but for those
    that the detector did not find.
    """
    return [
        face.descriptor
        for photo, found in sorted(decided_faces(folder).items())
        for face in found
        if face.whose == "subject" and face.confidence != KNOWN_ONLY and (photos is None or photo in photos)
    ]
