"""What a metrics server tells, read strictly: its text for Prometheus, its
JSON, and the digests by which its page is held together.

    metrics.py HOST:PORT        prints what it found wrong; exit status 1
"""
import base64
import hashlib
import json
import re
import sys
import urllib.request

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\n"])*)"'
SAMPLE = re.compile(r"(%s)(?:\{((?:%s)(?:,%s)*)\})? (\S+)" % (
    NAME, LABEL, LABEL))


def get(place, path):
    with urllib.request.urlopen("http://%s%s" % (place, path),
                                timeout=20) as answer:
        return answer.headers, answer.read()


def parse(text):
    """Families in order: name -> (type, {(sample, labels): value})."""
    families, current, helped = {}, None, None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        words = line.split(" ", 3)
        if line.startswith("# HELP "):
            helped = words[2]
        elif line.startswith("# TYPE "):
            assert words[2] == helped and words[2] not in families, line
            assert words[3] in ("counter", "gauge", "histogram"), line
            current = words[2]
            families[current] = (words[3], {})
        else:
            match = SAMPLE.fullmatch(line)
            assert match, line
            kind, samples = families[current]
            name, labels = match.group(1), match.group(2) or ""
            ends = ("_bucket", "_sum", "_count") if kind == "histogram" \
                else ("",)
            assert name in [current + end for end in ends], line
            key = name, tuple(m.groups() for m in re.finditer(LABEL, labels))
            assert key not in samples, line
            samples[key] = float(match.groups()[-1])
    return families


def check_histogram(name, samples):
    series = {}
    for (sample, labels), value in samples.items():
        if sample == name + "_bucket":
            rest = tuple(x for x in labels if x[0] != "le")
            bound = float(dict(labels)["le"])
            series.setdefault(rest, []).append((bound, value))
    for labels, buckets in series.items():
        assert buckets == sorted(buckets), name
        counts = [count for _, count in buckets]
        assert counts == sorted(counts), name
        assert buckets[-1][0] == float("inf"), name
        assert counts[-1] == samples[name + "_count", labels], name
        assert samples[name + "_sum", labels] >= 0, name


def check_text(place):
    headers, body = get(place, "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = parse(body.decode())
    for name, (kind, samples) in families.items():
        assert samples, name
        assert (kind == "counter") == name.endswith("_total"), name
        if kind == "histogram":
            check_histogram(name, samples)
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        return "own parser"
    theirs = list(text_string_to_metric_families(body.decode()))
    count = sum(len(family.samples) for family in theirs)
    assert count == sum(len(s) for _, s in families.values()), count
    return "prometheus_client"


def check_page(place):
    headers, body = get(place, "/")
    policy = headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        text = re.search(b"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()),
                         body, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert "%s-src 'sha256-%s'" % (tag, digest) in policy, \
            "the digest of <%s> is %s" % (tag, digest)
    assert b"http" not in body.replace(b"/metrics", b""), "outside assets"


def main():
    place = sys.argv[1]
    parser = check_text(place)
    check_page(place)
    status = json.loads(get(place, "/status.json")[1])
    assert [len(s["urls"]) > 0 for s in status["servers"]], status
    print("well,", parser)


main()
