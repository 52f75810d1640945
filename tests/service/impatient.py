"""`python -m tests.service.impatient serve …`: the real service, but its parent waits only shortly for its workers."""

from service.__main__ import main
from service.processes import relay

if __name__ == "__main__":
    relay.REACH_S = 0.5
    main()
