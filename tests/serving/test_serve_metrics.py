"""What is counted, in Prometheus' text format."""

from __future__ import annotations

import re
from typing import Any

from serving_toys import Serve

from lateen.serving.metrics import Metrics

LINE = re.compile(r'[a-z_]+(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? -?[0-9.e+-]+')


def test_requests_are_counted_by_route_and_status(client: Any) -> None:
    for path in ("/api/search?q=red", "/api/search?q=", "/api/thumbnail/a/b.jpg",
                 "/api/thumbnail/c.jpg", "/nothing/at/all", "/else"):  # fmt: skip
        client.get(path)
    text = client.get("/metrics").text
    for line in text.splitlines():
        assert line.startswith("# ") or LINE.fullmatch(line), line
    assert 'lateen_requests_total{method="GET",route="/api/search",status="200"} 1' in text
    assert 'lateen_requests_total{method="GET",route="/api/search",status="400"} 1' in text
    assert 'route="/api/thumbnail/{id:path}",status="404"} 2' in text
    assert 'lateen_requests_total{method="GET",route="other",status="404"} 2' in text
    assert 'lateen_request_seconds_bucket{route="/api/search",le="+Inf"} 2' in text
    assert 'lateen_request_seconds_count{route="/api/search"} 2' in text
    assert "lateen_photographs 36" in text
    assert 'index="photos"' in text
    assert "a/b.jpg" not in text


def test_forward_passes_are_counted(serve: Serve) -> None:
    client = serve(rate=0)
    client.post("/api/embed", json={"texts": ["red", "green", "blue"]})
    found = re.search(r"lateen_text_rows_total (\d+)", client.get("/metrics").text)
    assert found and int(found[1]) >= 3


def test_methods_and_routes_that_are_made_up_do_not_fill_the_memory(client: Any) -> None:
    for number in range(20):
        client.request(f"MADE{number}", f"/made/{number}")
    text = client.get("/metrics").text
    assert 'method="OTHER",route="other"' in text
    assert "MADE" not in text


def test_buckets_add_up() -> None:
    metrics = Metrics({}, {}, {"name": 'with "quotes"\nand lines'})
    for seconds in (0.001, 0.02, 0.3, 99.0):
        metrics.count("GET", "/x", 200, seconds)
    text = metrics.text()
    assert 'le="0.005"} 1' in text
    assert 'le="0.025"} 2' in text
    assert 'le="10"} 3' in text
    assert 'le="+Inf"} 4' in text
    assert r'name="with \"quotes\"\nand lines"' in text
