"""PhotoPrism's index, in its own tables, as SQLite and on a real MariaDB server that the test starts."""

import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_pipeline.errors import SourceError
from lora_pipeline.manifest import Outcome
from lora_pipeline.records import Photo
from lora_pipeline.settings import CollectSettings
from lora_pipeline.stages.collect import collect, glance
from lora_pipeline.stages.collect.photoprism import _opened
from lora_pipeline.subject import PhotoPrism

SERVER = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PASSWORD = "s3cret ü"
# The columns that PhotoPrism's entities declare for what is asked here, in the types that it gives them in both databases.
TABLES = (
    "CREATE TABLE subjects (subj_uid VARBINARY(42) PRIMARY KEY, subj_type VARBINARY(8) DEFAULT '', subj_src VARBINARY(8) DEFAULT '',"
    " subj_slug VARBINARY(160) DEFAULT '', subj_name VARCHAR(160) DEFAULT '', subj_alias VARCHAR(160) DEFAULT '',"
    " subj_hidden TINYINT(1) DEFAULT 0, subj_private TINYINT(1) DEFAULT 0, deleted_at DATETIME NULL)",
    "CREATE TABLE photos (id INTEGER PRIMARY KEY, photo_uid VARBINARY(42), photo_type VARBINARY(8) DEFAULT 'image',"
    " photo_path VARBINARY(500), photo_name VARBINARY(255), photo_private TINYINT(1), photo_quality SMALLINT, deleted_at DATETIME NULL)",
    "CREATE TABLE files (id INTEGER PRIMARY KEY, photo_id INTEGER, photo_uid VARBINARY(42), file_uid VARBINARY(42), file_name VARBINARY(755),"
    " file_hash VARBINARY(128),"
    " file_root VARBINARY(16) DEFAULT '/', file_primary TINYINT(1), file_sidecar TINYINT(1), file_missing TINYINT(1),"
    " file_orientation INTEGER, deleted_at DATETIME NULL)",
    "CREATE TABLE faces (id VARBINARY(64) PRIMARY KEY, face_src VARBINARY(8), subj_uid VARBINARY(42) DEFAULT '')",
    "CREATE TABLE markers (marker_uid VARBINARY(42) PRIMARY KEY, file_uid VARBINARY(42) DEFAULT '', marker_type VARBINARY(8) DEFAULT '',"
    " marker_src VARBINARY(8) DEFAULT '', marker_name VARCHAR(160), marker_review TINYINT(1), marker_invalid TINYINT(1),"
    " subj_uid VARBINARY(42), subj_src VARBINARY(8) DEFAULT '', face_id VARBINARY(64), face_dist DOUBLE DEFAULT -1,"
    " x FLOAT, y FLOAT, w FLOAT, h FLOAT, score SMALLINT)",
)
JANE, JOHN = "js6sg6b1h1njaaaa", "js6sg6b1h1njaaab"
BOX = (0.25, 0.5, 0.25, 0.125)

Write = Callable[[str, Sequence[Any]], None]


@dataclass(frozen=True)
class Library:
    """A PhotoPrism of the test's: its files, how it is named in subject.yaml, and a way to write into its index."""

    source: PhotoPrism
    write: Write
    files: int = 0

    def subject(self, uid: str, name: str, alias: str = "", deleted: str | None = None) -> None:
        columns = "subj_uid, subj_type, subj_slug, subj_name, subj_alias, deleted_at"
        self.insert("subjects", columns, uid, "person", name.lower(), name, alias, deleted)

    def photo(self, name: str, number: int, root: str = "/", draw: bool = True, **said: Any) -> None:
        """A photo with one file, of 80 × 40 pixels that EXIF turns upright, and a marker of Jane's face on it."""
        folder = self.source.sidecar if root == "sidecar" else self.source.originals
        path = (folder or Path()) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6
        if draw:
            Image.new("RGB", (80, 40), (number, 90, 90)).save(path, "JPEG", exif=exif)
        columns = "id, photo_uid, photo_private, deleted_at"
        self.insert("photos", columns, number, f"ps{number}", said.get("private", 0), said.get("archived"))
        columns = "id, photo_id, file_uid, file_name, file_root, file_primary, file_missing, deleted_at"
        missing, deleted = said.get("missing", 0), said.get("deleted")
        self.insert("files", columns, number, number, f"fs{number}", name, root, 1, missing, deleted)
        self.marker(number, said.get("invalid", 0))

    def marker(
        self, photo: int, invalid: int | None = 0, box: tuple[float, ...] = BOX, uid: str = JANE, type: str = "face"
    ) -> None:
        columns = "marker_uid, file_uid, marker_type, marker_invalid, subj_uid, x, y, w, h"
        name = f"ms{photo}-{uid[-1]}-{type}-{box[0]}"
        self.insert("markers", columns, name, f"fs{photo}", type, invalid, uid, *box)

    def insert(self, table: str, columns: str, *values: Any) -> None:
        self.write(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A MariaDB server on loopback, with nothing of this machine's in it; its port."""
    if SERVER is None:
        pytest.skip("MariaDB's server (Debian: mariadb-server) is not installed")
    folder = tmp_path_factory.mktemp("mariadb")
    install = shutil.which("mariadb-install-db", path=f"{os.environ.get('PATH', '')}:/usr/bin")
    assert install is not None
    # Its own user may write here whoever runs the test: a server does not run as root unless told to.
    user = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        [install, "--no-defaults", *user, f"--datadir={folder / 'data'}", "--auth-root-authentication-method=normal"],
        check=True,
        capture_output=True,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plug = folder / "sock" if len(str(folder)) < 90 else Path(f"/tmp/{os.getpid()}.sock")
    words = [
        f"--datadir={folder / 'data'}",
        f"--socket={plug}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        "--skip-name-resolve",
    ]
    process = subprocess.Popen([SERVER, "--no-defaults", *user, *words], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the server has ended"
                time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(params=["sqlite", "mariadb"])
def library(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    folders = {"originals": tmp_path / "originals", "sidecar": tmp_path / "sidecar"}
    if request.param == "sqlite":
        source = PhotoPrism(person="Jane Doe", database=str(tmp_path / "index.db"), **folders)
        with closing(sqlite3.connect(tmp_path / "index.db", isolation_level=None)) as connection:
            yield _filled(Library(source, lambda query, values: (connection.execute(query, values), None)[1]))
        return
    pymysql = pytest.importorskip("pymysql", reason="the package pymysql is not installed")
    port = request.getfixturevalue("server")
    with closing(pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)) as connection:
        cursor = connection.cursor()
        for query in (
            "DROP DATABASE IF EXISTS photoprism",
            "CREATE DATABASE photoprism CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
            f"CREATE OR REPLACE USER 'photo'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
            "GRANT ALL ON photoprism.* TO 'photo'@'127.0.0.1'",
            "USE photoprism",
        ):
            cursor.execute(query)
        monkeypatch.setenv("TEST_DATABASE_PASSWORD", PASSWORD)
        source = PhotoPrism(
            person="Jane Doe",
            database=f"mysql://photo@127.0.0.1:{port}/photoprism",
            password_env="TEST_DATABASE_PASSWORD",
            **folders,
        )
        yield _filled(
            Library(source, lambda query, values: (cursor.execute(query.replace("?", "%s"), values), None)[1])
        )


def _filled(library: Library) -> Library:
    for table in TABLES:
        library.write(table, ())
    library.subject(JANE, "Jane Doe", alias="Janey")
    library.subject(JOHN, "John Doe")
    library.subject("js0", "Jane Gone", deleted="2024-01-01 00:00:00")
    return library


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def run(library: Library, work: Path, **changes: Any) -> Outcome:
    return collect(library.source.model_copy(update=changes), work, CollectSettings())


def states(outcome: Outcome) -> dict[str, tuple[str, str]]:
    return {row.id: (row.state, row.reason) for row in outcome.manifest.rows}


def test_the_photos_on_which_the_subject_is_marked_with_the_face(library: Library, work: Path) -> None:
    library.photo("2024/05/a.jpg", 1)
    library.marker(1, box=(0.9, 0.9, 0.3, 0.3))  # reaches over the edge
    library.marker(1, uid=JOHN)
    library.photo("Übung/ä.heic.jpg", 2, root="sidecar")
    library.photo("label.jpg", 3, invalid=1)
    library.marker(3, type="label", box=(0.1, 0.1, 0.1, 0.1))
    library.photo("twice.jpg", 4, invalid=1)
    library.marker(4, invalid=None, box=(0.5, 0.5, 0.5, 0.5))
    library.write("UPDATE markers SET subj_uid = ? WHERE file_uid = ?", (JOHN, "fs3"))
    told = run(library, work)
    assert set(states(told)) == {"2024/05/a.jpg", "sidecar/Übung/ä.heic.jpg", "twice.jpg"}
    photos = {row.id: Photo.of(row) for row in told.manifest.kept}
    a = photos["2024/05/a.jpg"]
    assert (a.path, a.width_px, a.height_px) == (str(library.source.originals / "2024/05/a.jpg"), 40, 80)
    # Of the upright picture: 40 × 80, not the 80 × 40 in the file.
    assert a.known_faces == ((10, 40, 20, 50), (36, 72, 40, 80))
    assert a.tags == ()
    assert photos["sidecar/Übung/ä.heic.jpg"].path == str(library.source.sidecar / "Übung/ä.heic.jpg")  # type: ignore[operator]
    assert photos["twice.jpg"].known_faces == ((20, 40, 40, 80),)


def test_what_photoprism_leaves_out_is_left_out_with_its_reason(library: Library, work: Path) -> None:
    library.photo("good.jpg", 1)
    library.photo("private.jpg", 2, private=1)
    library.photo("archived.jpg", 3, archived="2024-01-01 00:00:00")
    library.photo("missing.jpg", 4, missing=1)
    library.photo("deleted.jpg", 5, deleted="2024-01-01 00:00:00")
    library.photo("invalid.jpg", 6, invalid=1)
    library.photo("gone.jpg", 7, draw=False)
    library.photo("odd.jpg", 8, root="examples")
    library.photo("side.jpg", 9, root="sidecar")
    told = states(run(library, work, sidecar=None))
    assert told == {
        "good.jpg": ("kept", ""),
        "private.jpg": ("dropped", "it is private in PhotoPrism"),
        "archived.jpg": ("dropped", "it is archived in PhotoPrism"),
        "missing.jpg": ("dropped", "its file is missing, says PhotoPrism"),
        "deleted.jpg": ("dropped", "its file is missing, says PhotoPrism"),
        "invalid.jpg": ("dropped", "its marker is invalid: in PhotoPrism somebody said that it is no such face"),
        "gone.jpg": ("failed", "it is not in the folder that source.photoprism.originals names"),
        "examples/odd.jpg": ("dropped", "it lies in PhotoPrism's folder 'examples', which is not read"),
        "sidecar/side.jpg": (
            "failed",
            "it is a side-car file: name PhotoPrism's side-car folder as source.photoprism.sidecar",
        ),
    }


def test_a_marker_that_moves_changes_its_photo_alone_and_one_that_goes_takes_it_out(
    library: Library, work: Path
) -> None:
    library.photo("a.jpg", 1)
    library.photo("b.jpg", 2)
    assert run(library, work).report.computed == 2
    assert run(library, work).report.computed == 0
    library.write("UPDATE markers SET x = 0.5 WHERE file_uid = ?", ("fs1",))
    told = run(library, work)
    assert (told.report.computed, told.report.reused) == (1, 1)
    assert Photo.of(told.manifest.row("a.jpg")).known_faces == ((20, 40, 30, 50),)
    library.write("UPDATE markers SET subj_uid = ? WHERE file_uid = ?", (JOHN, "fs1"))
    assert set(states(run(library, work))) == {"b.jpg"}


def test_a_glance_tells_whether_anything_changed(library: Library) -> None:
    library.photo("a.jpg", 1)
    library.photo("b.jpg", 2)
    seen = [glance(library.source), glance(library.source)]
    assert seen[0] == seen[1]
    library.photo("c.jpg", 3)
    seen.append(glance(library.source))
    for change in (
        "UPDATE files SET file_hash = ? WHERE file_uid = 'fs1'",
        "UPDATE markers SET x = ? WHERE file_uid = 'fs1'",
        "UPDATE photos SET photo_private = ? WHERE id = 2",
    ):
        library.write(change, (1,))
        seen.append(glance(library.source))
    library.write("UPDATE markers SET subj_uid = ? WHERE file_uid = 'fs2'", (JOHN,))
    seen.append(glance(library.source))
    assert len(set(seen)) == 6
    library.photo("d.jpg", 4)
    library.write("UPDATE markers SET subj_uid = ? WHERE file_uid = 'fs4'", (JOHN,))
    assert glance(library.source) == seen[-1]  # somebody else's


def test_the_index_is_only_read(library: Library) -> None:
    library.photo("a.jpg", 1)
    for query in ("DELETE FROM markers", "UPDATE photos SET photo_private = 1", "CREATE TABLE mine (id INTEGER)"):
        with pytest.raises(SourceError), _opened(library.source) as (select, _):
            select(query, ())
    with _opened(library.source) as (select, _):
        assert [int(row[0]) for row in select("SELECT count(*) FROM markers", ())] == [1]


def test_a_person_is_found_by_name_or_alias_and_a_misspelt_one_by_the_nearest(library: Library, work: Path) -> None:
    library.photo("a.jpg", 1)
    for person in ("jane doe", "Janey"):
        assert set(states(run(library, work, person=person))) == {"a.jpg"}
    with pytest.raises(SourceError, match="knows nobody named 'Jane Do'; did you mean 'Jane Doe'"):
        run(library, work, person="Jane Do")
    with pytest.raises(
        SourceError, match="knows nobody named '???'; there are: Jane Doe, Janey, John Doe".replace("?", r"\?")
    ):
        run(library, work, person="???")
    with pytest.raises(SourceError, match="no photo on which John Doe's face is marked"):
        run(library, work, person="John Doe")


def test_an_index_out_of_reach_is_told_in_words(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(database: str) -> str:
        source = PhotoPrism(person="Jane", database=database, originals=tmp_path, password_env="TEST_DATABASE_PASSWORD")
        with pytest.raises(SourceError) as told:
            collect(source, work, CollectSettings())
        return str(told.value)

    assert "index.db is not there" in asked(str(tmp_path / "index.db"))
    (tmp_path / "text.db").write_text("hello" * 99)
    assert "cannot be read as PhotoPrism's index: file is not a database" in asked(str(tmp_path / "text.db"))
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE a (b)").connection.close()
    assert "no such table: subjects" in asked(str(tmp_path / "other.db"))
    monkeypatch.delenv("TEST_DATABASE_PASSWORD", raising=False)
    assert "the environment variable TEST_DATABASE_PASSWORD, which is not set" in asked(
        "mysql://photo@127.0.0.1:1/photos"
    )
    monkeypatch.setenv("TEST_DATABASE_PASSWORD", PASSWORD)
    pytest.importorskip("pymysql")
    words = asked("mysql://photo@127.0.0.1:1/photos")
    assert "database 127.0.0.1:1 cannot be read" in words
    assert PASSWORD not in words
    away = PhotoPrism(person="Jane", database=str(tmp_path / "other.db"), originals=tmp_path / "away")
    with pytest.raises(SourceError, match=r"originals: the folder .* is not there; is it mounted"):
        collect(away, work, CollectSettings())
    monkeypatch.setitem(__import__("sys").modules, "pymysql", None)
    assert "pip install 'lora-pipeline[photoprism]'" in asked("mysql://photo@127.0.0.1:1/photos")


def test_a_wrong_password_is_told_in_words(
    server: int, tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOPRISM_DATABASE_PASSWORD", "wrong one")
    source = PhotoPrism(person="Jane", database=f"mariadb://nobody@127.0.0.1:{server}/photoprism", originals=tmp_path)
    with pytest.raises(SourceError, match="Access denied for user 'nobody'") as told:
        collect(source, work, CollectSettings())
    assert "wrong one" not in str(told.value)
