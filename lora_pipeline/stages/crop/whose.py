"""Whose face is which: the subject's, a stranger's, or too unsure to say."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.manifest import Packed, is_planning, key_of, read, write
from lora_pipeline.people import People, face_ids
from lora_pipeline.records import KNOWN_ONLY, Face, Row
from lora_pipeline.stages.crop.search import faces_of

DECIDED = "decided"
UNSURE = 1.15
"""Up to so many times `same_person_distance`, a face may still be the subject's."""
PAIRS = 2**18
"""Pairs of faces that are compared at once, however many faces there are: 2 MiB of distances."""

Faces = Mapping[str, tuple[Face, ...]]
"""A photo's id → its faces."""
Numbers = NDArray[np.float64]
Yes = NDArray[np.bool_]


def decide(
    faces: Faces, same_person_distance: float, reference: Sequence[float] | None, people: People | None = None
) -> dict[str, tuple[Face, ...]]:
    """Say of each face whose it is.

    What `people.yaml` says of a face holds. Of the others:

    The subject is the person on the reference photos; without one, the person who is in the most photos, or, where the photo
    library knows some faces, in the most of those. That person is found as the face that is near (`same_person_distance`) to
    faces in the most photos; where two faces tie, the one of whom there is more to see, then the one nearer to its like. From
    it, and the nearest face of each of those photos, comes the centre: the mean of their descriptors, which is surer than any
    one of them. At most one face a photo, the nearest to the centre, is the subject's, if it is near. All others are
    strangers, but for those near or nearly near (1.15 times) to the centre, which are unsure: a twin, a mirror, a bad angle.
    Who hides strangers hides these too.

    Where the photo library knows the subject's face, that one is it, however far from the centre; of two such in one photo the
    nearer. A face that only the library knows and the detector did not find (turned away, half hidden) says nothing of the
    centre, if there are others: its landmarks, and so its descriptor, are a guess.

    A face that is the subject's by hand is known like one of the library's, and the others of its photo are not the subject's. It
    has a part in the centre if it is near or nearly near to it (one in profile says little of the others). A face that is
    another's by hand has none. Where neither a reference nor a library says who the subject is, hands may overrule the majority:
    if some faces are the subject's by hand, and in some photo the majority's face is another's by hand, or stands beside one that
    is the subject's by hand, then the subject is the person for whom the most of the decisions speak, less those against; of
    several such, the one in the most photos. (So neither a profile that is settled, nor a twin, moves the subject to another person.)

    Args:
        faces: of each photo; an order of the photos or faces makes no difference.
        same_person_distance: Euclidean, between descriptors.
        reference: the subject's descriptor, from the reference photos.
        people: what `people.yaml` says.

    Returns:
        The same faces in the same order, with `whose`, `id`, `distance`, `by_hand` and `name`.
    """
    flat = _flat(faces, people or People())
    if not flat.faces:
        return dict(faces)
    centre = _centre(flat, same_person_distance, None if reference is None else np.asarray(reference, dtype=np.float64))
    distances = np.linalg.norm(flat.descriptors - centre, axis=1)
    # A known face goes before all others of its photo; one that cannot be the subject's goes behind.
    nearest = _nearest_a_photo(distances - 1e3 * flat.known + 1e4 * ~flat.open, flat.photos)
    decided = {photo: list(found) for photo, found in faces.items()}
    for index, (photo, number) in enumerate(flat.places):
        face, distance, known = flat.faces[index], distances[index], flat.known[index]
        if face.by_hand:
            whose = face.whose
        elif flat.open[index] and index in nearest and (known or distance <= same_person_distance):
            whose = "subject"
        # A second known one in a photo is a mirror, or a picture on the wall.
        elif known or distance <= UNSURE * same_person_distance:
            whose = "unsure"
        else:
            whose = "stranger"
        decided[photo][number] = replace(face, whose=whose, distance=round(float(distance), 3))
    return {photo: tuple(found) for photo, found in decided.items()}


def passers_by(faces: Faces, people: People) -> dict[str, tuple[Face, ...]]:
    """The faces on a pet's or a product's photos: strangers', but for what `people.yaml` says."""
    return {
        photo: tuple(face if face.by_hand else replace(face, whose="stranger") for face in _said(photo, found, people))
        for photo, found in faces.items()
    }


def _said(photo: str, faces: Sequence[Face], people: People) -> list[Face]:
    """The faces of one photo with their ids, and what is said of them by hand."""
    ids = face_ids(photo, [face.box for face in faces])
    return [
        replace(face, id=id, whose=word or face.whose, by_hand=word is not None, name=people.name(id))
        for face, id in zip(faces, ids, strict=True)
        for word in (people.whose(id),)
    ]


@dataclass(frozen=True)
class _Flat:
    """All faces in one row, in an order of their own: N of them."""

    faces: list[Face]
    places: list[tuple[str, int]]  # photo's id and place among its faces
    descriptors: Numbers  # N×128
    photos: NDArray[np.intp]  # N, a number a photo
    mine: Yes  # N, the subject's by hand
    open: Yes  # N, may be the subject's: by hand, or nothing against it is said by hand
    known: Yes  # N, the subject's by the library, if nothing is said by hand, or by hand

    @property
    def refused(self) -> Yes:
        """N, other persons' faces: by hand, or beside the subject's by hand."""
        return ~self.open & np.array([face.whose != "not_a_face" for face in self.faces])


def _flat(faces: Faces, people: People) -> _Flat:
    said = {photo: _said(photo, found, people) for photo, found in faces.items()}
    places = sorted((photo, number) for photo in said for number in range(len(said[photo])))
    flat = [said[photo][number] for photo, number in places]
    mine = np.array([face.by_hand and face.whose == "subject" for face in flat], dtype=bool)
    settled = {photo for (photo, _), its in zip(places, mine, strict=True) if its}
    free = [not face.by_hand and photo not in settled for face, (photo, _) in zip(flat, places, strict=True)]
    library = np.array([face.known and not face.by_hand for face in flat], dtype=bool)
    return _Flat(
        flat,
        places,
        np.array([face.descriptor for face in flat], dtype=np.float64),
        np.unique([photo for photo, _ in places], return_inverse=True)[1],
        mine,
        mine | np.array(free, dtype=bool),
        mine | library,
    )


def _centre(flat: _Flat, near: float, reference: Numbers | None) -> Numbers:
    """The subject's descriptor."""
    found = np.array([face.confidence > KNOWN_ONLY for face in flat.faces], dtype=bool)
    if reference is not None:
        like, of_these = [], [reference]
    elif not flat.open.any():
        return flat.descriptors.mean(0)  # every face is somebody else's by hand: their distances say nothing
    else:
        by_library = flat.open & flat.known
        if (by_library & ~flat.mine).any():
            telling = np.flatnonzero(by_library & found if (by_library & found).any() else by_library)
        else:
            telling = np.flatnonzero(flat.open)
        like = _most_seen(flat, telling, near)
        of_these = list(flat.descriptors[like])
    centre = np.mean(of_these, axis=0)
    near_by_hand = flat.mine & found & (np.linalg.norm(flat.descriptors - centre, axis=1) <= UNSURE * near)
    more = sorted(set(np.flatnonzero(near_by_hand).tolist()) - set(like))
    return np.mean([*of_these, *flat.descriptors[more]], axis=0) if more else centre


def _most_seen(flat: _Flat, telling: NDArray[np.intp], near: float) -> list[int]:
    """The faces of the person who is in the most photos, one a photo; only `telling` ones are asked."""
    descriptors, photos = flat.descriptors[telling], flat.photos[telling]
    areas = np.array([_area(flat.faces[index]) for index in telling])
    ranks = [(*rank, -index) for index, rank in enumerate(_ranks(descriptors, photos, areas, near))]
    medoid = -max(ranks)[3]
    if flat.mine.any() and _hands(flat, descriptors[medoid], near)[1]:
        hands = [_hands(flat, descriptor, near) for descriptor in descriptors]
        medoid = max(range(len(ranks)), key=lambda index: (hands[index][0] - hands[index][1], ranks[index]))
    distances = np.linalg.norm(descriptors - descriptors[medoid], axis=1)
    like = [other for other in _nearest_a_photo(distances, photos) if distances[other] <= near]
    return [int(telling[index]) for index in sorted(like)]


def _ranks(
    descriptors: Numbers, photos: NDArray[np.intp], areas: Numbers, near: float
) -> list[tuple[int, float, float]]:
    """Of each face: in how many photos the nearest face is near it, the area of these faces (square pixels), and minus their mean distance."""
    from scipy.spatial.distance import cdist

    order = np.argsort(photos, kind="stable")
    starts, many = np.unique(photos[order], return_index=True, return_counts=True)[1:]
    ranks: list[tuple[int, float, float]] = []
    rows = max(1, PAIRS // len(descriptors))
    for begin in range(0, len(descriptors), rows):
        apart = cdist(descriptors[begin : begin + rows], descriptors[order])
        nearest = np.minimum.reduceat(apart, starts, axis=1)
        like = nearest <= near
        counts = like.sum(1)
        shown = ((apart == np.repeat(nearest, many, axis=1)) & np.repeat(like, many, axis=1)) @ areas[order]
        means = np.where(like, nearest, 0).sum(1) / counts  # at least the face itself is near
        ranks += zip(counts.tolist(), shown.round(1).tolist(), (-means).tolist(), strict=True)
    return ranks


def _hands(flat: _Flat, descriptor: Numbers, near: float) -> tuple[int, int]:
    """How many decisions by hand speak for that person as the subject, and how many against.

    For: faces that are the subject's by hand and like theirs. Against: photos in which the face most like theirs is another's.
    """
    distances = np.linalg.norm(flat.descriptors - descriptor, axis=1)
    like = _nearest_a_photo(np.where(flat.open | flat.refused, distances, np.inf), flat.photos)
    against = sum(bool(flat.refused[index]) and distances[index] <= near for index in like)
    return int((distances[flat.mine] <= UNSURE * near).sum()), against


def _nearest_a_photo(distances: Numbers, photos: NDArray[np.intp]) -> set[int]:
    """Index of the nearest face of each photo."""
    order = np.lexsort((distances, photos))
    first = np.unique(photos[order], return_index=True)[1]
    return {int(index) for index in order[first]}


def _area(face: Face) -> float:
    return float((face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))


def write_decided(folder: Path, faces: Faces) -> None:
    """Leave the decision as the table `decided`, a row a photo. Writes nothing while planning, or if it stands there already."""
    rows = [
        Row(photo, key_of(data := [face.data() for face in found]), data=Packed({"faces": data}))
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
        tuple(face.descriptor)
        for photo, found in sorted(decided_faces(folder).items())
        for face in found
        if face.whose == "subject" and face.confidence != KNOWN_ONLY and (photos is None or photo in photos)
    ]
