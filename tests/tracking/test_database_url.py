import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tracking.database_url import sqlite_url


@pytest.mark.parametrize(
    "name", ["plain", "a?b=c", "50%", "%41", "with blanks", "Größe ✓", "me:secret@host", "a#b"]
)
def test_the_file_behind_the_address_is_the_one_that_was_named(tmp_path: Path, name: str) -> None:
    file = tmp_path / name / "some.db"
    file.parent.mkdir()
    engine = sa.create_engine(sqlite_url(file))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE seen (x INTEGER)"))
    engine.dispose()
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("seen",)]
    assert [path.name for path in tmp_path.iterdir()] == [name]
