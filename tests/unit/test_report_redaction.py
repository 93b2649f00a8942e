"""What a report must not hold, and what it has to leave: tables of lines, and secrets put anywhere by hypothesis."""

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.telling import known
from orchestrator.telling.known import Known
from orchestrator.telling.redaction import Redaction

BLANK = Redaction(Known())
# Made up, each of its kind's shape.
HUGGING = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
SCOPE = "ms-" + "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
OPEN = "sk-" + "proj-Zx9Yw8Vu7Ts6Rq5Po4Nm3"
OURS = "tdm-" + "q83vEjRWeJq83vEjRWeJq83vEjRW"
AMAZON = "AKIA" + "QWERTYUIOP123456"
WEB = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0." + "c2lnbmF0dXJlLXdpdGhvdXQta2V5"
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
PEM = f"-----BEGIN PRIVATE KEY-----\n{BODY}\nMzEfYyjiWA4R4/M2bS1GB4t7NXp98C3S\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize("secret", [HUGGING, SCOPE, OPEN, OURS, AMAZON, WEB])
@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-23 00:41:55 [api.py:1] got {} from a client",
        '{{"a": "{}", "b": 1}}',
        "it's '{}', it says",
        'token = "{}"',
        "https://hub.example.org/{}/models",
        "[{}]",
    ],
)
def test_what_looks_like_a_token_goes_wherever_it_stands(secret: str, line: str) -> None:
    assert secret not in BLANK(line.format(secret))


@pytest.mark.parametrize(
    "line",
    [
        "Authorization: Bearer {}",
        'curl -H "Authorization: Bearer {}" http://localhost:8000/v1/models',
        "authorization: Basic {}",
        '{{"authorization": "Bearer {}", "accept": "*/*"}}',
        "{{'x-api-key': '{}'}}",
        "{{'headers': {{'X-Api-Key': b'{}'}}}}",
        "x-api-key: {}",
        "Proxy-Authorization: Basic {}",
        "Cookie: session={}; other=1",
        "Set-Cookie: id={}; HttpOnly",
        "HF_TOKEN={}",
        "export MODELSCOPE_API_TOKEN='{}'",
        'api_key = "{}"',
        "VLLM_API_KEY: {}",
        "non-default args: {{'model': 'a', 'api_key': ['{}', 'b'], 'port': 8000}}",
        "vllm serve a --api-key {} --port 8000",
        "vllm serve a --api-key={}",
        '["vllm", "serve", "--api-key", "{}"]',
        "password={}",
        'password: "{}"',
        '{{\\"password\\": \\"{}\\"}}',
        "client_secret => {}",
        "aws_secret_access_key = {}",
        "{{apiKey: '{}'}}",
        "os.environ['HF_TOKEN'] = '{}'",
        "http://me:{}@proxy.example.org:7890",
        "proxy me:{}@proxy.example.org:7890 refused",
        "https://{}@hub.example.org/simple",
        "GET /v1/models?api={} HTTP/1.1",
        "https://hub.example.org/file?X-Signature={}&b=2",
        "https://hub.example.org/#access={}",
        "curl -u me:{} http://localhost",
        "//docker:{}@registry.example.org:5000/library/debian",
        "token:{}",
        "secret={}",
        "MYSQL_PWD={}",
        "db_pass={}",
        "secret_key_base: {}",
        "session_id={}; path=/",
        "Namespace(api_key=None, hf_token='{}')",
        "PRIVATE-TOKEN: {}",
        "Authorization%3A%20Bearer%20{}",
    ],
)
@pytest.mark.parametrize("secret", ["c0rrect-horse", HEX, "aGVsbG8gd29ybGQhIQ==", "$mE3t*Tomorrow_4t~six"])
def test_what_a_name_or_an_address_says_is_a_secret_goes(line: str, secret: str) -> None:
    assert secret not in BLANK(line.format(secret))


@pytest.mark.parametrize(
    "line",
    [
        "the hub token {}",
        "ENV HF_TOKEN {}",
        "login me password {}",
        "API key is {}",
        "<password>{}</password>",
        "key\t{}",
    ],
)
def test_a_word_that_is_none_goes_after_the_name_of_a_secret(line: str) -> None:
    assert "Zq8Rt5Yx2Lk9Wm4Pv7" not in BLANK(line.format("Zq8Rt5Yx2Lk9Wm4Pv7"))


@pytest.mark.parametrize("text", [PEM, PEM.replace("\n", "\\n"), PEM[:150], PEM[28:92], f"key {PEM} end"])
def test_private_keys_go_also_cut_ones(text: str) -> None:
    assert BODY[:60] not in BLANK(text)


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("/home/anna/x, /home/bob/x, again /home/anna", "/home/USER1/x, /home/USER2/x, again /home/USER1"),
        (r"C:\Users\Anna Smith\AppData", r"C:\Users\USER1\AppData"),
        (r"{\"p\": \"C:\\Users\\anna\\x\"}", r"{\"p\": \"C:\\Users\\USER1\\x\"}"),
        ("/mnt/c/Users/anna/.wslconfig", "/mnt/c/Users/USER1/.wslconfig"),
        ("/mnt/c/Users/安娜/models", "/mnt/c/Users/USER1/models"),
        (r"\\wsl$\Debian\home\anna\tandem", r"\\wsl$\Debian\home\USER1\tandem"),
        ("file=%2Fhome%2Fanna%2Fx", "file=%2Fhome%2FUSER1%2Fx"),
        ("C:\\Users\\Public and ~, which is /root", "C:\\Users\\Public and ~, which is /root"),
        ("192.168.1.7:8000 to 10.0.0.5, 192.168.1.7", "ADDRESS1:8000 to ADDRESS2, ADDRESS1"),
        ("[2001:db8::1]:8000, fe80::1%eth0: refused", "[ADDRESS1]:8000, ADDRESS2%eth0: refused"),
        ("::ffff:10.0.0.5 said", "ADDRESS1 said"),
        ("client: 172.20.5.3, server: _", "client: ADDRESS1, server: _"),
        ("00:15:5d:01:ca:05 is up", "MAC1 is up"),
        ("mail anna.b@example.org now", "mail EMAIL1 now"),
        (f"image sha256:{HEX} and {HEX}", f"image sha256:{HEX[:12]} and {HEX[:12]}"),
        (f"debian@sha256:{HEX}", f"debian@sha256:{HEX[:12]}"),
        ("GPU-8f3e1a2b-1111-2222-3333-444455556666", "GPU-8f3e1a2b"),
        ("\x1b[31merror\x1b[0m", "error"),
    ],
)  # fmt: skip
def test_names_and_addresses_become_words_that_stay_apart(line: str, after: str) -> None:
    redact = Redaction(Known())
    assert redact(line) == after
    assert redact(after) == after


LEAKS = [
    # Of these an arrow, a bracket, or a word made a version before.
    ("5->192.168.1.7:8000", "5->ADDRESS1:8000"),
    ("<192.168.1.7>", "<ADDRESS1>"),
    ("<8.8.8.8>, >=8.8.4.4:53", "<ADDRESS1>, >=ADDRESS2:53"),
    ("connected to WSL 172.20.5.3 now", "connected to WSL ADDRESS1 now"),
    ("Linux 192.168.1.20", "Linux ADDRESS1"),
    ("10.1.2.3+, 10.1.2.3+cu12", "ADDRESS1+, ADDRESS1+cu12"),
    ("driver 47.100.1.2, build 47.100.1.3, release 47.100.1.4", "driver ADDRESS1, build ADDRESS2, release ADDRESS3"),
    ("version 192.168.0.1; version=10.0.0.1; cuda: 169.254.1.1", "version ADDRESS1; version=ADDRESS2; cuda: ADDRESS3"),
    ("x==172.16.0.9, x>=100.64.3.4, x==172.31.255.254", "x==ADDRESS1, x>=ADDRESS2, x==ADDRESS3"),
    ("version 47.1.2.3:8000, v47.1.2.3/24, ==47.1.2.3>", "version ADDRESS1:8000, vADDRESS1/24, ==ADDRESS1>"),
    ("192.168.1.7-1-microsoft, 192.168.1.7-py3", "ADDRESS1-1-microsoft, ADDRESS1-py3"),
    ("nvidia-curand-cu12==10.3.5.147:80", "nvidia-curand-cu12==ADDRESS1:80"),
    # Glued to other signs.
    (r"failed\n192.168.1.7\t8.8.8.8", r"failed\nADDRESS1\tADDRESS2"),
    ("10.1.2.3.nip.io 192.168.1.7.lan eth0_10.1.2.4 v10.1.2.5", "ADDRESS1.nip.io ADDRESS2.lan eth0_ADDRESS3 vADDRESS4"),
    ("a=http%3A%2F%2F192.168.1.7%3A80, %20192.168.1.7", "a=http%3A%2F%2FADDRESS1%3A80, %20ADDRESS1"),
    ("7.1.168.192.in-addr.arpa", "ADDRESS1.in-addr.arpa"),
    ("ip-10-0-3-7.ec2.internal, 192-168-1-9", "ADDRESS1.ec2.internal, ADDRESS2"),
    # IPv6.
    ("fe80::215:5dff:fe01:ca05%12 and fe80::1%eth0", "ADDRESS1%12 and ADDRESS2%eth0"),
    ("5->[fd00::7]:8000, <2001:db8::7>, http://%5Bfd00::7%5D", "5->[ADDRESS1]:8000, <ADDRESS2>, http://%5BADDRESS1%5D"),
    ("2001:db8:0:0:0:0:0:1:8000", "ADDRESS1:8000"),
    (r"x\nfd00::7", r"x\nADDRESS1"),
    ("::ffff:192.168.1.7", "ADDRESS1"),
    # Hardware.
    ("eth0-00:15:5d:01:ca:05 enx00155d01ca05 mac_00-15-5D-01-CA-05", "eth0-MAC1 enxMAC1 mac_MAC1"),
    ("80:00:00:48:fe:80:00:00:00:00:00:00:e4:1d:2d:03:00:4b:e4:71", "MAC1"),
    ("MIG-8f3e1a2b-1111-2222-3333-444455556666 GPU-8F3E1A2B-1111-2222-3333-444455556666", "MIG-8f3e1a2b GPU-8F3E1A2B"),
    ("    Serial Number                     : 1650520012345", "    Serial Number                     : ***"),
    ('"serial": "1650520012345", board_serial=0322118081234', '"serial": "***", board_serial=***'),
    # Names of people in paths.
    (r"C:\Users\Li Wei", r"C:\Users\USER1"),
    (r'"C:\Users\Li Wei" is shut', r'"C:\Users\USER1" is shut'),
    (r"'C:\Users\Li Wei Chen'", r"'C:\Users\USER1'"),
    (r'{"home": "C:\\Users\\Li Wei"}', r'{"home": "C:\\Users\\USER1"}'),
    (r"C:\Users\Li Wei: no such folder", r"C:\Users\USER1: no such folder"),
    (r"C:\Users\Li Wei is full, C:\Users\anna is full", r"C:\Users\USER1 is full, C:\Users\USER2 is full"),
    (r"C:\Users\li wei", r"C:\Users\USER1"),
    (r"DESKTOP-4F7K2QX\li wei", r"HOST1\USER1"),
    ("key sk-abc1234567 of a client", "key *** of a client"),
    ("47.1.2.3.nip.io, 47.1.2.4.example.cn:80", "ADDRESS1.nip.io, ADDRESS2.example.cn:80"),
    ("USERNAME=Li Wei", "USERNAME=USER1"),
    ("USER=anna LOGNAME=anna HOSTNAME=gpubox, USER=root", "USER=USER1 LOGNAME=USER1 HOSTNAME=HOST1, USER=root"),
    (r'{"USERNAME": "anna", "LOGONSERVER": "\\\\ANNAPC"}', r'{"USERNAME": "USER1", "LOGONSERVER": "\\\\HOST1"}'),
    ("ssh-ed25519 AAAA anna@gpubox", "ssh-ed25519 AAAA USER1@HOST1"),
    (r"C:\Users\李 伟", r"C:\Users\USER1"),
    (r"C:\Users\O'Brien\x, C:\Users\Anna (work)\x", r"C:\Users\USER1\x, C:\Users\USER2\x"),
    ("c:/users/Li Wei/x and /MNT/C/USERS/bob", "c:/users/USER1/x and /MNT/C/USERS/USER2"),
    (r"\\wsl.localhost\Debian\home\anna", r"\\wsl.localhost\Debian\home\USER1"),
    ("//wsl.localhost/Debian/home/anna/x", "//wsl.localhost/Debian/home/USER1/x"),
    ("file:///C:/Users/Li%20Wei/x", "file:///C:/Users/USER1/x"),
    ("~anna/tandem", "~USER1/tandem"),
    # People at machines.
    ("anna@gpubox:~/tandem$ ls", "USER1@HOST1:~/tandem$ ls"),
    ("ssh -p 22 anna@gpubox, root@gpubox:/data# ls", "ssh -p 22 USER1@HOST1, root@HOST1:/data# ls"),
    ("DESKTOP-4F7K2QX and laptop-9a8b7c6d", "HOST1 and HOST2"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "after"), LEAKS)
def test_what_looks_like_a_version_or_a_part_of_a_word_and_is_private_goes(line: str, after: str) -> None:
    redact = Redaction(Known())
    assert redact(line) == after
    assert redact(after) == after


@pytest.mark.parametrize(
    "sign", ["", " ", "<", ">", "->", "=", "==", ">=", "(", '"', "'", "/", "|", "@", "\\n", "_", "wsl "]
)
@pytest.mark.parametrize(
    "end", ["", " ", ">", "+", ":80", "/24", "-1-x", ".", ",", ")", '"', "\\n", "_x", ".lan", " GB"]
)
@pytest.mark.parametrize("address", ["10.1.2.3", "172.20.5.3", "192.168.1.7", "100.64.0.9", "169.254.7.8"])
def test_a_private_address_goes_whatever_is_around_it(sign: str, end: str, address: str) -> None:
    assert address not in BLANK(f"version{sign}{address}{end}")


VERSIONS = r"""
NVRM version: NVIDIA UNIX x86_64 Kernel Module 580.159.04; glibc 2.28.3; Windows driver 32.0.15.6094
Linux 5.15.153.1-microsoft-standard-WSL2; Linux version 5.15.153.1-microsoft-standard-WSL2 (root@65c757a075e2)
WSL version 2.3.26.0; WSL 2.3.26.0; WSL version: 2.0.14.0; WSLg version: 1.0.65
Windows 10.0.22631.4460; Windows version: 10.0.26100.2894; Microsoft Windows [Version 10.0.22631.4460]
MSRDC version: 1.2.5620; Direct3D version: 1.611.1-81528511; DXCore version: 10.0.26100.1-240331-1435.ge-release
[pip3] nvidia-curand-cu12==10.3.5.147, nvidia-cublas-cu12==12.4.5.8, nvidia-cudnn-cu12>=9.1.0.70
nvidia_curand_cu12-10.3.5.147-py3-none-manylinux2014_x86_64.whl, nvidia-curand-cu12 10.3.5.147, libcurand.so.10.3.5.147
nvidia_curand_cu12-10.3.5.147.dist-info; cudnn 9.1.0.70; torch 2.6.0+cu124; v1.2.3.4; libfoo-1.2.3.4.so; a 1.2.3.4+cu12
::1 [::1]:8000 ::1%lo 127.0.0.1:8000 0.0.0.0/0 ::ffff:127.0.0.1 255.255.255.255 0:0:0:0:0:0:0:1
Serial Number : N/A, serialized 12345678, serial: disabled, /mnt/c/Users/Public/x, ~/tandem, 3~4/5, ~10/12
debian@bookworm, image@v1:latest, docker-desktop, desktop-linux, laptops-12345678
C:\Users\Default\x 2026-11-23-10-32-27-64 1.2.3 1.2.3.4.5 300.1.2.3 step-1-2-3-4 10-20-30-40 a~b/c
"""


@pytest.mark.parametrize("line", VERSIONS.strip().splitlines())
def test_versions_and_what_is_everybodys_stay_as_they_are(line: str) -> None:
    assert Redaction(Known(users=frozenset({"anna"}), machines=frozenset({"annas-box"})))(line) == line


ORDINARY = """
driver 580.95.05, CUDA 13.0, NVIDIA GeForce RTX 4090, 24564 MiB, 450 W
Linux 5.15.167.4-microsoft-standard-WSL2; nvidia-cudnn-cu12==9.1.0.70; nvidia_cublas_cu12-12.4.5.8-py3-none-any.whl
Qwen/Qwen2.5-14B-Instruct, DeepSeek-R1-Distill-Qwen-14B, cross-encoder/ms-marco-MiniLM-L-12-v2, QwQ-32B-AWQ
tandem/vllm:0.32.0-cu130 4f2c1b7a9d3e 9.08 GB; torch 2.13.0+cu130; version 1.2.3.4
(EngineCore pid=25) ERROR 11-23 00:41:55 [core.py:133] torch.OutOfMemoryError: CUDA out of memory.
[rank0]:[E1125 10:32:27.646492803 shim_common.cpp:523] c10::Error at torch::Tensor::item()
2026-11-23T10:32:27.646Z 2026/11/23 10:32:27 [warn] 12#12: *5 upstream timed out (110: Connection timed out)
http://127.0.0.1:8000/v1 http://localhost:8000 0.0.0.0:8000 [::]:8000 ::1 127.0.0.11
max_tokens=512, total_output_tokens: 12800, bos_token='<s>', eos_token_id=2, per output token: 12.34 ms, token: 5
INFO: Avg prompt throughput: 12.3 tokens/s, KV cache usage: 4.5%, key: value, KeyError: 'model.layers.0'
models.toml: models.demo.gpu: unknown key; valid keys: model, gpus, args
TANDEM_ADMIN_KEY_FILE=/data/tandem/admin.key TANDEM_KEYS_FOLDER=./docker/router/keys
no key is set; bearer token; basic authentication; password: null, api_key=None, HF_TOKEN=$HF_TOKEN
curl -k -H "Authorization: Bearer KEY" https://localhost:8000/v1/completions -d '{"model": "qwen-14b"}'
/opt/venv/lib/python3.11/site-packages/vllm/entrypoints/openai/serving_chat/api_server.py", line 12, in <module>
nvidia-cublas-cu12 12.4.5.8 token DeepSeek/x key models.demo.env, PWD=/data/tandem
sorted(x, key=lambda item: item.name)
Unexpected token: identifier; token_type: bearer; auth: disabled; cookie: none; hash key abc; libcublas.so.12.4.5.8
0 2 4 6 8:10, 00000000:01:00.0, 12-34-56, sk-1, hf_transfer, tdm-, task-runner, std::vector<int>, x::b
https://mirrors.tuna.tsinghua.edu.cn/pypi/web/simple https://www.modelscope.cn docker.m.daocloud.io
--tensor-parallel-size 2 --max-model-len 16384 -u 1000:1000 -e A=1 what? a ? b : c
bench: 31.7 (30.1 to 33.0), 596, 2125; exit code 137, restarts 3, since 2026-01-02T03:04:05
"""


@pytest.mark.parametrize("line", ORDINARY.strip().splitlines())
def test_ordinary_lines_stay_as_they_are(line: str) -> None:
    assert Redaction(Known(users=frozenset({"anna"}), machines=frozenset({"annas-box"})))(line) == line


def test_known_names_go_where_they_stand_alone() -> None:
    redact = Redaction(
        Known(users=frozenset({"anna"}), machines=frozenset({"annabox"}), hosts=frozenset({"p.corp.cn"}))
    )
    assert redact("anna@ANNABOX:/data/anna_2, annals of annabox.lan via http://p.corp.cn:3128") == (
        "USER1@HOST1:/data/USER1_2, annals of HOST1.lan via http://ADDRESS1:3128"
    )


def test_names_that_are_nobodys_are_not_known() -> None:
    assert known.people(["root", "Ubuntu", "me", "1000", "GPU", "anna"]) == {"anna"}


def test_hosts_of_settings_are_known_but_for_public_ones() -> None:
    values = {
        "TANDEM_PYPI_INDEX": "https://pypi.corp.example/simple", "HF_ENDPOINT": "https://hf-mirror.com",
        "HTTPS_PROXY": "http://me:pw@proxy.corp.example:3128", "TANDEM_REGISTRY": "hub.corp.example:5000/x",
        "NO_PROXY": "localhost,.corp.example", "TANDEM_DEBIAN_MIRROR": "http://listed.example/debian",
        "HTTP_PROXY": "http://10.1.2.3:80", "TANDEM_BASE_IMAGE": "debian:bookworm",
    }  # fmt: skip
    assert known.hosts(values, 'url = "http://listed.example/debian"') == {
        "pypi.corp.example", "proxy.corp.example", "hub.corp.example", "corp.example",
    }  # fmt: skip


def test_secrets_are_read_from_what_is_in_order_and_what_is_not() -> None:
    assert set(known.of_keys("# c\nanna tdm-aaaa rate=5/s\nbroken\n#bob tdm-bbbb\n")) == {"tdm-aaaa", "tdm-bbbb"}
    assert list(known.of_file("-----BEGIN X-----\nabc\n\ndef\n-----END X-----\n")) == ["abc", "def"]
    given = known.variables(
        "export HF_TOKEN='one'\nHTTPS_PROXY=http://u:p@ss/w@h:1\nA_KEY_FILE=/x\nMY_KEY: two2 # x\nX_KEY=true"
    )
    assert {"one", "two2", "p@ss/w", "u:p@ss/w"} == set(known.of_variables(given))
    assert set(known.of_variables({"PIP_INDEX_URL": "https://tokenalone@h/simple"})) == {"tokenalone"}
    models = '[models.a]\nenv = { HF_TOKEN = "three", N = "x" }\nargs = { api-key = ["four"], u = "http://a:five@h" }\n'
    assert set(known.of_models(models)) == {"three", "four", "five", "a:five"}
    assert list(known.of_models("no toml [")) == []


SIGNS = st.characters(min_codepoint=33, max_codepoint=126)
SECRETS = st.one_of(
    st.text(SIGNS, min_size=16, max_size=60),
    st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=12, max_size=30),
    st.binary(min_size=16, max_size=40).map(bytes.hex),
    st.binary(min_size=16, max_size=40).map(lambda raw: base64.b64encode(raw).decode()),
    st.uuids().map(str),
)
WAYS: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "quoted": lambda secret: quote(secret, safe=""),
    "path": quote,
    "plus": quote_plus,
    "low": lambda secret: re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
    "json": lambda secret: json.dumps(secret)[1:-1],
    "json as it is": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "json in json": lambda secret: json.dumps(json.dumps(secret, ensure_ascii=False)[1:-1])[1:-1],
    "python": lambda secret: repr(secret)[1:-1],
    "hex": lambda secret: secret.encode().hex(),
}
LINES = st.sampled_from(
    ["{}", "a {} b", "ERROR 11-23 [x.py:1] {}: refused", '{{"a": "{}"}}', "x = '{}'", "http://u:{}@h/", "/a?b={}&c=d",
     "{}{}", "/home/anna/{}/x", "10.0.0.5 {} fe80::1", "{}@example.org", "-----BEGIN X-----{}", "sha256:{}", "\t{}\r"]
)  # fmt: skip


@settings(max_examples=150, deadline=None, derandomize=True)
@given(secret=SECRETS, line=LINES, way=st.sampled_from(sorted(WAYS)))
@example(secret="a" * 16, line="{}{}", way="plain")
def test_a_known_secret_is_in_no_output_in_whatever_way_it_is_written(secret: str, line: str, way: str) -> None:
    written = WAYS[way](secret)
    said = Redaction(Known(frozenset({secret})))(line.format(written, written))
    assert written not in said
    assert secret not in said


@settings(max_examples=150, deadline=None, derandomize=True)
@given(secret=SECRETS, before=st.text(SIGNS, max_size=8), after=st.text(SIGNS, max_size=8), safe=st.booleans())
def test_a_known_secret_is_in_no_base64_of_the_output(secret: str, before: str, after: str, safe: bool) -> None:
    code = base64.urlsafe_b64encode if safe else base64.b64encode
    written = code((before + secret + after).encode()).decode()
    assert Redaction(Known(frozenset({secret})))(f"basic: {written}.") == "basic: ***."


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    address=st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
        lambda found: not (found.is_loopback or found.is_unspecified or str(found) == "255.255.255.255")
    ),
    line=st.sampled_from(["{}", "a {} b", "[{}]:80", "to {}, by", '"{}"', "http://[{}]:80/x", "from={}"]),
)  # fmt: skip
def test_no_address_is_in_the_output(address: object, line: str) -> None:
    said = BLANK(line.format(address))
    assert str(address) not in said
    assert "ADDRESS" in said


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text(max_size=200))
def test_a_second_look_changes_nothing(text: str) -> None:
    redact = Redaction(Known(frozenset({"abcdefgh"}), frozenset({"anna"})))
    once = redact(text)
    assert redact(once) == once


def test_values_are_redacted_within_lists_and_tables_and_numbers_stay() -> None:
    given = {"a": ["/home/anna/x", 1, None], "password": "x", "b": {"token": "", "key": 5, "n": 1.5}}
    assert Redaction(Known()).values(given) == {
        "a": ["/home/USER1/x", 1, None], "password": "***", "b": {"token": "", "key": 5, "n": 1.5},
    }  # fmt: skip


def test_a_long_log_is_done_in_a_moment() -> None:
    line = "(EngineCore pid=25) INFO 11-23 00:41:55 [core.py:133] " + "word_with-many.parts/and:colons=1, " * 10
    said = BLANK("\n".join([line] * 1000 + ["a" * 20000, "-" * 20000, ":" * 20000, "1." * 10000, "/" * 20000]))
    assert said.count("EngineCore") == 1000
