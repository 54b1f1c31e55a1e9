"""`python -m llm_gateway.supervisor --plan FD`: what `llm-gateway serve` turns into once configuration is compiled."""

from __future__ import annotations

import sys

from llm_gateway.supervisor import parent, plan
from llm_gateway.supervisor.sockets import BindError


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] != "--plan":
        sys.stderr.write("usage: python -m llm_gateway.supervisor --plan FD   (llm-gateway serve does this)\n")
        return 2
    try:
        supervisor = parent.Supervisor(plan.take(int(arguments[1])))
    except BindError as error:
        sys.stderr.write(f"llm-gateway: {error}\n")
        return 1
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
