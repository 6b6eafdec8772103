"""The first schema."""


def up(migrator, db):
    from worker.models import TABLES

    db.create_tables(TABLES)
