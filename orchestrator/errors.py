"""The errors that a user is expected to meet: printed as they are, without a traceback."""


class TandemError(Exception):
    """Something the user can mend; str() says what is wrong and what to do. Ends the command with `exit_code`."""

    exit_code = 1


class ConfigError(TandemError):
    """models.toml or a setting is wrong. `problems` holds one `path: fact` line for each fault found."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
