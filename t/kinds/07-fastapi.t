#!/bin/sh
# FastAPI, SQLAlchemy with asyncpg, alembic: the conf of the README.
top=$(cd "${0%/*}/../.." && pwd)
. "$top/t/kinds/kinds.sh"
python pytest fastapi uvicorn sqlalchemy asyncpg alembic
postgres

mkdir -p app alembic/versions tests/e2e
cat >app/__init__.py <<'END'
import os
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

engine = create_async_engine(os.environ["DATABASE__URL"])
app = FastAPI()

@app.get("/healthz")
async def healthz():
    return {}

@app.post("/items/{name}")
async def add(name: str):
    async with engine.begin() as c:
        await c.execute(text("INSERT INTO items (name) VALUES (:name)"), {"name": name})
        return [row[0] for row in await c.execute(text("SELECT name FROM items ORDER BY id"))]
END
cat >app/__main__.py <<'END'
import sys, uvicorn
uvicorn.run("app:app", port=int(sys.argv[2]))
END
cat >alembic.ini <<'END'
[alembic]
script_location = alembic
END
cat >alembic/env.py <<'END'
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

def migrate(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    async with create_async_engine(os.environ["DATABASE__URL"]).begin() as connection:
        await connection.run_sync(migrate)

asyncio.run(main())
END
cat >alembic/versions/one.py <<'END'
import sqlalchemy as sa
from alembic import op
revision, down_revision = "one", None
def upgrade():
    op.create_table("items", sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text))
    op.execute("INSERT INTO items (name) VALUES ('template')")
END
for i in 1 2 3; do
	cat >tests/e2e/test_$i.py <<-END
	import json, os, urllib.request
	def test_add():
	    url = os.environ["E2E_BASE_URL"] + "/items/$i"
	    answer = urllib.request.urlopen(urllib.request.Request(url, method="POST"))
	    assert json.load(answer) == ["template", "$i"]
	END
done
cat >prun.conf <<END
junit = report.xml
db = postgresql+asyncpg:${url#postgresql:}
db-env = DATABASE__URL
setup = alembic upgrade head
server = python3 -m app --port \$PRUN_PORT
ready = http /healthz
url-env = E2E_BASE_URL
END
run -j2 tests/e2e
is 'each file has its migrated database and its server' "$status" 0
has 'and ran' out '^tests/e2e/test_3.py +PASS +1 '
is 'nothing is left behind' "$(databases)" "$name"
[ "$status" = 0 ] || cat out err prun-*/setup.log prun-*/0*/*.log
run -j2 tests/e2e
is 'again, on the same template' $status 0
finish
