"""Back tier: keeps items and a counter in Redis."""

import json
import os

from redis import Redis
from service import route, serve

ITEMS = json.loads(os.environ.get("SHOP_ITEMS", '[{"name": "Anvil", "price": 40}]'))
db = Redis(os.environ.get("DB_HOST", "db"), int(os.environ.get("DB_PORT", "6379")), os.environ.get("DB_PASSWORD", ""))


@route("/items")
def items(_query: dict[str, str]) -> dict[str, object]:
    views = db.command("INCR", "views")
    return {"items": ITEMS, "views": views, "answered_by": [os.environ["HOSTNAME"], f"db {db.host}"]}


@route("/ready")
def ready(_query: dict[str, str]) -> dict[str, object]:
    return {"database": db.command("PING")}


if __name__ == "__main__":
    serve()
