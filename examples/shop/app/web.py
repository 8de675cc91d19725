"""Front tier: a page that shows the shop's items, how often it was seen, and which pods answered."""

import html
import os

from service import call, route, serve

API = os.environ.get("API_URL", "http://api.shop-back")
TITLE = os.environ.get("SHOP_TITLE", "Shop")


@route("/")
def page(_query: dict[str, str]) -> tuple[str, str]:
    items = call(f"{API}/items")
    rows = "".join(f"<li>{html.escape(item['name'])}: {item['price']}</li>" for item in items["items"])
    trail = " &rarr; ".join(html.escape(pod) for pod in [os.environ["HOSTNAME"], *items["answered_by"]])
    body = f"<h1>{html.escape(TITLE)}</h1><ul>{rows}</ul><p>Seen {items['views']} times. Answered by {trail}.</p>"
    return "text/html; charset=utf-8", f"<!doctype html><title>{html.escape(TITLE)}</title>{body}\n"


@route("/whoami")
def whoami(_query: dict[str, str]) -> dict[str, object]:
    return {"answered_by": [{"pod": os.environ["HOSTNAME"], "host": os.environ.get("NODE_NAME", "")}]}


@route("/trail")
def trail(_query: dict[str, str]) -> dict[str, object]:
    items = call(f"{API}/items")
    return {"answered_by": [os.environ["HOSTNAME"], *items["answered_by"]], "views": items["views"]}


if __name__ == "__main__":
    serve()
