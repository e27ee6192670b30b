"""Move what is served: python -m serve.rollout status | canary --version N --share 0.1 | end | promote | rollback

It writes to the registry and nothing else; endpoints follow within seconds, and no request fails for it.
"""

import argparse
import json
import sys
from dataclasses import asdict

from mlflow.exceptions import MlflowException

from serve.rollout import registry
from serve.rollout.target import Target

VERBS = {
    "status": "what is to be served",
    "canary": "try a version on a share of the requests",
    "end": "give all requests back to the champion",
    "promote": "make the canary, or --version, the champion",
    "rollback": "make the version champion again that the champion replaced",
}


def run(verb: str, model: str, version: str | None, share: float) -> Target:
    """Carry out a verb and return what is to be served from now on.

    Raises:
        ValueError: what the registry cannot do, in words for the caller.
    """
    match verb:
        case "canary":
            if version is None:
                raise ValueError("canary: say which version, --version N")
            return registry.start_canary(model, version, share)
        case "end":
            return registry.end_canary(model)
        case "promote":
            return registry.promote(model, version)
        case "rollback":
            return registry.rollback(model)
        case _:
            return registry.read_target(model)


def told(model: str, target: Target) -> str:
    """Return a target in words."""
    canary = f"; version {target.canary.version} on {target.canary.share:.0%} of the requests" if target.canary else ""
    return f"{model}: version {target.champion} is the champion{canary}"


def main(arguments: list[str] | None = None) -> None:
    """Read the command line; what a user can mend ends with a message and status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m serve.rollout",
        description="Move what is served.",
        epilog="\n".join(f"{verb:10s}{says}" for verb, says in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=tuple(VERBS))
    parser.add_argument("--model", default="ssd1b-nano", help="registered model (default: %(default)s)")
    parser.add_argument("--version", help="a version of it")
    parser.add_argument("--share", type=float, default=0.1, help="of the requests, 0 to 1 (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        target = run(options.verb, options.model, options.version, options.share)
    except (ValueError, MlflowException, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    print(told(options.model, target))
    print(json.dumps({"model": options.model, **asdict(target)}))


if __name__ == "__main__":
    main()
