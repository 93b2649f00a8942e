"""Judges the router's port, how Windows and other machines reach it, the clock; points to the mirrors. Pure."""

from orchestrator import reach
from orchestrator.doctor.box import Box, Forward
from orchestrator.doctor.checks_memory import wslconfig
from orchestrator.doctor.finding import Finding

# Programs of Windows that hold a port of WSL's for WSL: its own relay, and Docker Desktop.
RELAYS = frozenset({"wslrelay.exe", "wslhost.exe", "com.docker.backend.exe", "vpnkit.exe"})
# Runs services of Windows, each in one of many: portproxy is one of them (iphlpsvc).
SERVICES = "svchost.exe"
# Windows' own kernel, which listens for IIS and others that use its HTTP server (http.sys).
KERNEL = "system"
# TLS certificates and signed release files of mirrors are not yet, or not any more, valid by a clock that is off.
CLOCK_SECONDS = 300
# A certificate that is to be renewed has been by then: public authorities' end after 90 days, and clients renew at 30.
RENEWED_DAYS = 14
RESTART = "docker compose restart router"


def findings(box: Box) -> list[Finding]:
    """Say what is to be said of the network."""
    return [port(box), windows_port(box), localhost(box), lan(box), certificate(box), clock(box), mirrors()]


def port(box: Box) -> Finding:
    """Nothing starts where the router cannot."""
    at = box.port
    name = f"{at.bind}:{at.number}"
    if at.ours:
        return Finding("port", "ok", f"{name}, the router has it")
    if at.refused == "taken":
        who = ", ".join(at.holders) or "a program of another user (sudo ss -ltnp shows it)"
        if box.wsl.mode == "mirrored" and not at.holders and box.windows.holders:
            who = f"on Windows, {', '.join(box.windows.holders)}"
        other = f", such as {at.other}," if at.other else ""
        found, fix = f"{name} is taken by {who}", f"Set TANDEM_PORT in .env to a free one{other}\nor stop what holds it"
        return Finding("port", "bad", found, "the router cannot start", fix, blocks=True)
    if at.refused == "no such address":
        fix = "TANDEM_BIND=127.0.0.1 in .env, or 0.0.0.0 for other machines"
        why = "the router cannot start"
        return Finding("port", "bad", f"{name}: this machine has no such address (TANDEM_BIND)", why, fix, blocks=True)
    if at.refused is None:
        why = "Docker does not answer" if box.docker.fault else at.fault or "Docker is not on this machine"
        return Finding("port", "unknown", f"{name}: {why}")
    # Docker may listen where this user may not.
    return Finding("port", "ok", f"{name} is free")


def windows_port(box: Box) -> Finding:
    """A program on Windows that has the port answers in the router's place to what asks there."""
    check, windows = "port on windows", box.windows
    if not box.wsl.version:
        return Finding(check, "ok", "does not apply: this is not WSL")
    number = box.port.number
    if windows.fault:
        look = f"in PowerShell:\nnetstat -ano | findstr :{number}"
        return Finding(check, "unknown", windows.fault, "", look)
    kept = [pair for pair in windows.excluded if pair[0] <= number <= pair[1]]
    if kept:
        why = "nothing of Windows may listen there, so localhost does not reach the router"
        fix = "TANDEM_PORT in .env: one outside of\nnetsh interface ipv4 show excludedportrange tcp   # in PowerShell"
        return Finding(check, "warn", f"Windows keeps {kept[0][0]} to {kept[0][1]} for itself", why, fix)
    passed = any(each.port == number for each in windows.forwards)
    ours = RELAYS | ({SERVICES} if passed else frozenset())
    others = [who for who in windows.holders if _program(who) not in ours]
    if not others:
        return Finding(check, "ok", f"{number} is free, or WSL's own")
    why = f"on Windows http://localhost:{number} is that program, and not the router"
    fix = "stop it, or TANDEM_PORT in .env"
    if any(_program(who) == KERNEL for who in others):
        fix = (
            "TANDEM_PORT in .env, or stop what has it by way of Windows' kernel (IIS, a service);\n"
            "in PowerShell this names it:\nnetsh http show servicestate"
        )
    return Finding(check, "warn", f"{number} is taken by {', '.join(others)}", why, fix)


def _program(who: str) -> str:
    """The name of one that is written as `python.exe (pid 4711)`."""
    return who.partition(" (pid ")[0].lower()


def localhost(box: Box) -> Finding:
    """Programs on Windows, such as Chatbox, reach WSL by localhost unless .wslconfig says otherwise."""
    check, wsl = "localhost on windows", box.wsl
    if not wsl.version:
        return Finding(check, "ok", "does not apply: this is not WSL")
    if box.docker.is_desktop:
        return Finding(check, "ok", "Docker Desktop listens on Windows itself")
    if wsl.config is None:
        return Finding(check, "unknown", ".wslconfig could not be found from here", "", "see networkingMode in it")
    if wsl.mode == "mirrored":
        return Finding(check, "ok", "mirrored: WSL and Windows have one localhost")
    if wsl.mode == "none":
        why = "WSL has no network: nothing is pulled, and nobody reaches a model"
        return Finding(check, "bad", "networkingMode=none", why, wslconfig("networkingMode=mirrored"))
    if _forwarded(box):
        return Finding(check, "ok", f"forwarded ({wsl.mode})")
    why = f"on Windows http://localhost:{box.port.number} does not reach the router"
    return Finding(check, "warn", "localhostForwarding=false", why, wslconfig("localhostForwarding=true"))


def _forwarded(box: Box) -> bool:
    """Whether Windows' localhost leads into WSL's own network."""
    return (box.wsl.config or {}).get("localhostforwarding", "true").lower() != "false"


def lan(box: Box) -> Finding:
    """Under WSL's own network, TANDEM_BIND on another address lets in nobody yet: Windows stands before it."""
    check, bind, number = "reached from others", box.port.bind, box.port.number
    if reach.only_here(bind):
        return Finding(check, "ok", f"not asked for (TANDEM_BIND={bind})")
    if not box.wsl.version or box.docker.is_desktop:
        return Finding(check, "ok", f"TANDEM_BIND={bind}")
    if box.wsl.mode == "mirrored":
        found = "mirrored; Windows' firewall has the last word"
        return Finding(check, "ok", found)
    if box.wsl.config is None:
        return Finding(check, "unknown", ".wslconfig could not be found from here", "", _open(box))
    lines = [each for each in box.windows.forwards if each.port == number]
    passed = [each for each in lines if not _windows_alone(each)]
    arrives = next((each for each in passed if _arrives(box, each)), None)
    if arrives:
        return Finding(check, "ok", f"by Windows' portproxy at {arrives.listen} to {arrives.to}")
    if passed:
        found = f"portproxy sends {number} to {passed[0].to}:{passed[0].to_port}, WSL is at {box.address or 'another'}"
        why = "WSL's address is another one after each restart, and others reach nobody"
        return Finding(check, "warn", found, why, _open(box))
    if lines:
        found = f"portproxy listens on {lines[0].listen}:{number}"
        return Finding(check, "warn", found, "there Windows alone reaches it, and no other machine", _open(box))
    if box.windows.fault:
        return Finding(check, "unknown", f"{box.wsl.mode} network; {box.windows.fault}", "", _open(box))
    why = f"WSL has a network of its own ({box.wsl.mode}): others reach Windows, and Windows passes nothing on"
    return Finding(check, "warn", f"TANDEM_BIND={bind}, and nothing leads to it", why, _open(box))


def _windows_alone(line: Forward) -> bool:
    """Whether portproxy listens where no other machine comes in; * is all addresses, as 0.0.0.0 is."""
    try:
        return reach.only_here(line.listen)
    except ValueError:  # a name, or *
        return line.listen.lower() == "localhost"


def _arrives(box: Box, line: Forward) -> bool:
    """Whether what portproxy passes on comes to the router, also by way of Windows' own localhost."""
    by_localhost = line.to in ("127.0.0.1", "localhost") and _forwarded(box)
    here = by_localhost or (bool(box.address) and line.to == box.address)
    return here and line.to_port == box.port.number


def _open(box: Box) -> str:
    """The two ways: one network for both (Windows 11 22H2 or newer), or a line of portproxy."""
    number = box.port.number
    return (
        f"{wslconfig('networkingMode=mirrored')}\n"
        "and in PowerShell as administrator:\n"
        f"New-NetFirewallHyperVRule -Name tandem -DisplayName tandem -Direction Inbound -LocalPorts {number} "
        "-Protocol TCP -VMCreatorId '{40E0AC32-46A5-438A-A0B2-2B479E8F2E90}'\n"
        "or, before Windows 11 22H2, in PowerShell as administrator after each restart of WSL:\n"
        f"netsh interface portproxy add v4tov4 listenaddress=0.0.0.0 listenport={number} "
        f"connectaddress={box.address or '<hostname -I of WSL>'} connectport={number}\n"
        f"New-NetFirewallRule -DisplayName tandem -Direction Inbound -LocalPort {number} -Protocol TCP -Action Allow"
    )


def certificate(box: Box) -> Finding:
    """A renewed certificate is of no use while the router shows the one before."""
    check, found = "certificate", box.certificate
    if not found.path:
        return Finding(check, "ok", "does not apply: the router speaks plain HTTP (TANDEM_TLS_FOLDER)")
    if found.unfit:
        why = "the router keeps the one before, which ends, and does not start with this"
        return Finding(check, "bad", found.unfit, why, "python -m orchestrator logs router   # says what it has taken")
    if found.same is False:
        said = f"the router does not show the one in {found.path}"
        why = "it keeps the one before, which ends; our own commands trust the one in the file alone"
        if found.folder:
            fix = "python -m orchestrator logs router   # says why; a good pair is taken up within 5 s"
            return Finding(check, "bad", said, why, fix)
        return Finding(check, "bad", said, why, f"{RESTART}\nand TANDEM_TLS_FOLDER in .env, which needs none of that")
    if found.expired:
        return Finding(check, "bad", f"{found.path} has expired", "clients refuse it", "renew it")
    if found.days is None:
        return Finding(check, "unknown", f"{found.path}: {found.fault}")
    said = f"{found.path} is valid for {int(found.days)} days more"
    if found.days < RENEWED_DAYS:
        return Finding(check, "warn", said, "clients refuse it then", "renew it")
    return Finding(check, "ok", said)


def clock(box: Box) -> Finding:
    """A clock that is off makes every certificate invalid."""
    found = box.clock
    if found.ahead is None:
        return Finding("clock", "unknown", f"not compared: {found.fault}")
    seconds = abs(round(found.ahead))
    if seconds <= CLOCK_SECONDS:
        return Finding("clock", "ok", f"within {max(1, seconds)} s of {found.server}")
    said = f"{seconds} s {'ahead of' if found.ahead > 0 else 'behind'} {found.server}"
    why = "certificates and signed lists of packages are not valid by it: pulls and builds fail"
    fix = "sudo timedatectl set-ntp true"
    if box.wsl.version:
        # Debian 12 and Ubuntu 24.04 have it in a package of its own.
        fix = (
            "sudo hwclock -s   # not there: sudo apt-get install util-linux-extra\n"
            "or in PowerShell, which ends all of WSL:\nwsl --shutdown"
        )
    return Finding("clock", "bad", said, why, fix)


def mirrors() -> Finding:
    """Trying them takes half a minute, and has a command of its own."""
    return Finding("hub and mirrors", "ok", "not tried here: python -m orchestrator doctor network")
