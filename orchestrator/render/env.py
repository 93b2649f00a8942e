"""env/<profile>.env: switches to a profile with `docker compose --env-file`, and names what may be overridden. Pure."""

from orchestrator.profiles import Profile
from orchestrator.render.file import NOTICE, File
from orchestrator.render.serve import OVERRIDABLE, variable


def env(profile: Profile) -> File:
    """Render the env file of one profile."""
    lines = [
        f"# {NOTICE}",
        f"# docker compose --env-file env/{profile.name}.env up -d",
        f"COMPOSE_PROFILES={profile.name}",
        "",
        "# To say otherwise without rendering again, set these in .env, in the shell, or in an env file of your own.",
        "# --env-file takes the place of .env; to have both: --env-file .env --env-file env/" + f"{profile.name}.env",
    ]
    given = [key for key in OVERRIDABLE if getattr(profile, key) is not None]
    lines += [f"# {variable(profile, key)}={getattr(profile, key)}" for key in given]
    return File(f"env/{profile.name}.env", "\n".join([*lines, "# TANDEM_PORT=8000", ""]))
