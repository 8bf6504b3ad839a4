"""A process that talks to PostgreSQL on command, as users of psycopg do. Each command takes the server's URL and a count."""

import json
import sys

import psycopg


def plain(connection, count):
    """Every kind of statement, each waited for; from its sixth use on one is prepared."""
    for number in range(count // 2):
        connection.execute("SELECT id FROM orders WHERE id = %s", (number % 50,)).fetchall()
        connection.execute("UPDATE orders SET note = %s WHERE id = %s", ("psycopg secret", number % 50))


def pipeline(connection, count):
    """Many statements before one Sync."""
    with connection.pipeline():
        for number in range(count):
            connection.execute("SELECT note FROM orders WHERE id = %s", (number % 50,))


def failing(connection, count):
    """Pipelines whose middle fails: what follows it is skipped by the server."""
    for _ in range(count):
        try:
            with connection.pipeline():
                connection.execute("SELECT 1")
                connection.execute("SELECT 1 / %s", (0,))
                connection.execute("SELECT 2")
        except psycopg.Error:
            pass


def copy(connection, count):
    """COPY in both directions."""
    connection.execute("DELETE FROM copied")
    with connection.cursor() as cursor:
        with cursor.copy("COPY copied (id, note) FROM STDIN") as rows:
            for number in range(count):
                rows.write_row((number, "psycopg secret"))
        with cursor.copy("COPY (SELECT id FROM copied) TO STDOUT") as rows:
            assert sum(1 for _ in rows.rows()) == count


COMMANDS = {"plain": plain, "pipeline": pipeline, "failing": failing, "copy": copy}

print("ready", flush=True)
for line in sys.stdin:
    command, url, count = line.split()
    with psycopg.connect(url, autocommit=True) as connection:
        COMMANDS[command](connection, int(count))
    print(json.dumps(int(count)), flush=True)
