"""Checks of the network: RabbitMQ, Redis, the clock, and the run."""

from __future__ import annotations

import statistics
import time

import httpx

from broker.protocol import Site, Topology
from broker.rabbit.management import default_url
from broker.rabbit.probe import probe
from cli.doctor.checks import CheckContext, CheckResult
from common.byte_sizes import format_bytes
from common.errors import BrokerError, StoreError
from common.software import software_version
from common.store.errors import StorePermissionError
from common.store.store import Store, connect
from common.tls.verification import verifying_context
from common.urls import BROKER, HTTP, STORE, parse_url
from worker.site.run_discovery import OVER, read_info

PREFIX = "fccl."  # of the queues and exchanges of every run
RIGHTS = r"^fccl\..*"
PINGS = 5
SLOW_MS = 200.0
SKEW_WARN_S, SKEW_FAIL_S = 5.0, 60.0  # task deadlines and receipts depend on both clocks
FULL = 0.8  # share of its memory limit
MANAGEMENT_SECONDS = 5.0
_NO_STORE = "unknown without the store"


def check_broker(context: CheckContext) -> CheckResult:
    """Check RabbitMQ: connection, TLS, login, version, and a coordinator's right to declare."""
    broker = context.config.broker
    coordinator = context.side == "coordinator"
    server = probe(broker.url, broker.ca, prefix=PREFIX if coordinator else "")
    address = parse_url(broker.url, BROKER).address
    text = f"{server.product} {server.version} at {address}, user {server.user}"
    text += ", over TLS" if broker.url.startswith("amqps://") else ""
    if server.may_declare is False:
        return CheckResult(
            "broker", "fail", f"{text}, who may not declare queues",
            f"give it permission to configure {RIGHTS}, or set broker.url to a user who has it",
        )  # fmt: skip
    if server.alarm is not None:
        return CheckResult("broker", "fail", f"{text}: {server.alarm.what}", server.alarm.remedy)
    if text_and_remedy := transport_problem(broker.url, broker.ca, "broker", "amqps"):
        return CheckResult("broker", "warn", f"{text}; {text_and_remedy[0]}", text_and_remedy[1])
    return CheckResult("broker", "ok", text)


def check_management(context: CheckContext) -> CheckResult:
    """Check RabbitMQ's management API, with which `fccl invite` creates users."""
    name, remedy = "management", "only `fccl invite` needs it: set broker.management"
    broker = context.config.broker
    server = parse_url(broker.url, BROKER)
    url = (broker.management or default_url(server)).rstrip("/")
    where = parse_url(url, HTTP).address
    try:
        answer = httpx.get(
            f"{url}/api/whoami",
            auth=(server.user or "guest", server.password or "guest"),
            timeout=MANAGEMENT_SECONDS,
            verify=verifying_context(broker.ca),
            trust_env=False,  # the federation's own server is reached without a proxy
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        kind = type(error).__name__
        return CheckResult(name, "warn", f"no management API answers at {where} ({kind})", remedy)
    if answer.status_code in (401, 403):
        return CheckResult(name, "warn", f"{where} refuses the user of broker.url", remedy)
    tags = _tags(answer)
    if tags is None:
        return CheckResult(name, "warn", f"the server at {where} is no management API", remedy)
    if "administrator" not in tags:
        return CheckResult(
            name, "warn", f"{where} answers, but this user is no administrator",
            "only `fccl invite` needs it: `rabbitmqctl set_user_tags USER administrator`",
        )  # fmt: skip
    return CheckResult(name, "ok", f"{where} answers, the user is an administrator")


def _tags(answer: httpx.Response) -> list[str] | None:
    try:
        tags = answer.json()["tags"]
    except (ValueError, KeyError, TypeError):
        return None
    return tags.split(",") if isinstance(tags, str) else list(tags)


def check_store(context: CheckContext) -> CheckResult:
    """Check Redis: connection, TLS, login, version, memory and latency."""
    config = context.config.store
    store = connect(config.url, ca=config.ca)
    latency = _latency_ms(store)
    text = f"at {store.where}, answers in {latency:.1f} ms"
    text += ", over TLS" if config.url.startswith("rediss://") else ""
    try:
        about = store.server_info()
    except StorePermissionError:  # the user of an invited site has no right to read it
        text = f"Redis {text}"
    else:
        of = f" of {format_bytes(about.limit)}" if about.limit else ""
        text = f"Redis {about.version} {text}, {format_bytes(about.used)}{of} in use"
        if about.limit and about.used > FULL * about.limit:
            return CheckResult("store", "warn", f"{text}: nearly full", "raise its maxmemory")
        if about.limit and about.policy != "noeviction":
            return CheckResult(
                "store", "warn", f"{text}; when full it evicts keys ({about.policy})",
                "set its maxmemory-policy to noeviction: an evicted adapter stops workers",
            )  # fmt: skip
    if latency > SLOW_MS:
        return CheckResult(
            "store", "warn", text, "workers fetch adapters from it: move it nearer to them"
        )
    if text_and_remedy := transport_problem(config.url, config.ca, "store", "rediss"):
        return CheckResult("store", "warn", f"{text}; {text_and_remedy[0]}", text_and_remedy[1])
    return CheckResult("store", "ok", text)


def _latency_ms(store: Store) -> float:
    def ping() -> float:
        start = time.perf_counter()
        store.ping()
        return time.perf_counter() - start

    return statistics.median(ping() for _ in range(PINGS)) * 1000


def check_clock(context: CheckContext) -> CheckResult:
    """Compare this machine's clock with that of Redis."""
    config = context.config.store
    try:
        store = connect(config.url, ca=config.ca)
    except StoreError:
        return CheckResult("clock", "warn", _NO_STORE)
    before = time.time()
    try:
        store_time = store.server_time()
    except StorePermissionError:
        text = "cannot be compared: this user may not read the store's time"
        return CheckResult("clock", "ok", text)
    return judge_skew((before + time.time()) / 2 - store_time)


def judge_skew(seconds: float) -> CheckResult:
    """Return the result for a clock that is ahead by so many seconds."""
    size, way = abs(seconds), "ahead of" if seconds > 0 else "behind"
    text = f"{size:.1f} s {way} the store's"
    remedy = "keep the time with NTP: on Linux `timedatectl set-ntp true`"
    if size > SKEW_FAIL_S:
        return CheckResult("clock", "fail", text, remedy)
    if size > SKEW_WARN_S:
        return CheckResult("clock", "warn", text, remedy)
    return CheckResult("clock", "ok", text)


def check_run(context: CheckContext) -> CheckResult:
    """Check what the coordinator says of the run, and that a worker's task queue exists."""
    config, name = context.config, context.config.run.name
    try:
        store = connect(config.store.url, ca=config.store.ca)
    except StoreError:
        return CheckResult("run", "warn", _NO_STORE)
    run = store.get_run(name)
    info = read_info(store, run) if run else None
    if run is None or info is None:
        text, remedy = f"no run {name} yet", "start `fccl coordinator`; workers wait for it"
        if context.side == "worker":
            return CheckResult("run", "warn", text, remedy)
        return CheckResult("run", "ok", text)
    text = f"run {name} ({run}) is {info.status}, version {info.version}/{info.total_versions}"
    if info.status == "waiting":
        text += f" ({info.detail})"
    if info.software and info.software != software_version():
        return CheckResult(
            "run", "warn", f"{text}, by {info.software}; here is {software_version()}",
            "install the same version on both sides",
        )  # fmt: skip
    if context.side == "worker" and info.status not in OVER:
        queue = Topology(run).task_queue(Site(context.site))
        try:
            queues = probe(config.broker.url, config.broker.ca, queues=[queue]).queues
        except BrokerError:
            return CheckResult("run", "ok", text)  # the check of the broker says why
        if queue not in queues:
            return CheckResult(
                "run", "fail", f"{text}, and has no task queue for site {context.site}",
                "check the name of the site; `fccl invite` creates one",
            )  # fmt: skip
    return CheckResult("run", "ok", text)


def transport_problem(
    url: str, ca: str | None, section: str, secure: str
) -> tuple[str, str] | None:
    """Return a problem with the protection of a connection and its remedy; None if it is safe."""
    server = parse_url(url, BROKER if section == "broker" else STORE)
    if server.scheme == secure:
        return None
    if ca is not None:
        return f"{section}.ca is set but not used", f"write {section}.url with {secure}://"
    if server.is_loopback:
        return None
    return (
        "passwords and updates travel unencrypted",
        f"use TLS: `fccl certs`, and {section}.url with {secure}://",
    )
