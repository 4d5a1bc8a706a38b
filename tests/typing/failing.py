"""Types of the errors."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import assert_type

import execsrv


async def failing(client: execsrv.Client) -> None:
    try:
        await client.run(["make"], check=True, timeout=5)
    except execsrv.CommandTimeoutError as error:
        assert_type(error.timeout, float)
        late: TimeoutError = error
        print(late)
    except execsrv.CommandFailedError as error:
        assert_type(error.exit_code, int | None)
    except execsrv.CommandError as error:
        assert_type(error.argv, list[str])
        assert_type(error.exit_code, int | None)
        assert_type(error.signal, str | None)
        assert_type(error.reason, str | None)
    except execsrv.ConnectionLostError as error:
        print(error.stdout)
    except execsrv.SpawnError as error:
        assert_type(error.stage, str)
        assert_type(error.errno, int)
        refused: execsrv.RequestError = error
        print(refused)
    except execsrv.BadAnswerError as error:
        assert_type(error.method, str)
    except execsrv.ExecsrvError as error:
        any_error: Exception = error
        print(any_error)


def wrong() -> None:
    execsrv.CommandFailedError("make", 2)  # type: ignore[call-arg]
    execsrv.CommandTimeoutError(["make"])  # type: ignore[call-arg]
    bad: execsrv.RequestError = execsrv.BadAnswerError("a", "b")  # type: ignore[assignment]
    print(bad)
