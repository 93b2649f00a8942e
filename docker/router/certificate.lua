-- Owns which certificate TLS is spoken with: the one that the router began with, until its files hold another good pair.
--
-- nginx reads its certificate when it starts, from a copy that start.sh made. The first worker looks at the files
-- themselves, and puts a new pair where every worker sees it at its next handshake. Nothing is reloaded, so that no
-- connection notices. A pair that is no good is told, and changes nothing.

local ffi = require "ffi"
local ssl = require "ngx.ssl"

ffi.cdef [[
  void *d2i_X509(void **into, const unsigned char **from, long size);
  void *d2i_AutoPrivateKey(void **into, const unsigned char **from, long size);
  void X509_free(void *certificate);
  void EVP_PKEY_free(void *key);
  int X509_check_private_key(const void *certificate, const void *key);
  const void *X509_get0_notBefore(const void *certificate);
  const void *X509_get0_notAfter(const void *certificate);
  int ASN1_TIME_diff(int *days, int *seconds, const void *from, const void *to);
  const void *TLS_server_method(void);
  void *SSL_CTX_new(const void *method);
  void SSL_CTX_free(void *context);
  int SSL_CTX_use_certificate(void *context, void *certificate);
  long SSL_CTX_ctrl(void *context, int what, long how, void *with);
  int OPENSSL_sk_num(const void *list);
  void *OPENSSL_sk_value(const void *list, int index);
  unsigned long ERR_peek_last_error(void);
  const char *ERR_reason_error_string(unsigned long code);
  void ERR_clear_error(void);
]]
-- SSL_CTRL_CHAIN_CERT, with a count of its own of who has it.
local CHAIN_CERT, COUNTED = 89, 1

local FOLDER = os.getenv("TANDEM_TLS_FOLDER") or ""
local CERT = FOLDER ~= "" and "/run/tls/cert.pem" or "/run/secrets/tls-cert"
local KEY = FOLDER ~= "" and "/run/tls/key.pem" or "/run/secrets/tls-key"
local SETTINGS = FOLDER ~= "" and "TANDEM_TLS_FOLDER" or "TANDEM_TLS_CERT_FILE and TANDEM_TLS_KEY_FILE"
local BEGUN = { "/tmp/tandem/tls/cert.pem", "/tmp/tandem/tls/key.pem" }
-- Seconds between two looks. A pair that two looks in a row see is one that nobody is writing any more.
local OFTEN = 2
-- Bytes: ten times a chain of four with large keys.
local MOST = 128 * 1024

local C = ffi.C
local dict = ngx.shared.certificate
local M = {}

local function contents(path)
  local file, problem = io.open(path, "rb")
  if not file then
    return nil, problem
  end
  local text
  text, problem = file:read(MOST + 1)
  file:close()
  if text and #text > MOST then
    return nil, path .. ": is larger than " .. MOST .. " bytes"
  end
  return text or not problem and "" or nil, problem and path .. ": " .. problem
end

-- Gives two files as one text, which has both ends in it.
local function both(cert, key)
  return #cert .. "\n" .. cert .. key
end

local function parted(pair)
  local length, from = string.match(pair, "^(%d+)\n()")
  return string.sub(pair, from, from + length - 1), string.sub(pair, from + length)
end

-- Reads DER with one of OpenSSL's functions; nil for what is none of its kind.
local function read(with, free, der)
  local from = ffi.new("const unsigned char *[1]", ffi.cast("const unsigned char *", der))
  local found = with(nil, from, #der)
  return found ~= nil and ffi.gc(found, free) or nil
end

-- Days until a time of a certificate; of one that is over, less than 0.
local function days(time)
  local whole, rest = ffi.new("int[1]"), ffi.new("int[1]")
  if C.ASN1_TIME_diff(whole, rest, nil, time) ~= 1 then
    return nil
  end
  return whole[0] + rest[0] / 86400
end

-- What OpenSSL has against a certificate and those of its authorities, such as a key that is too short; nil for nothing.
-- A handshake would find it too late.
local function refusal(chain)
  local context = ffi.gc(C.SSL_CTX_new(C.TLS_server_method()), C.SSL_CTX_free)
  local taken = C.SSL_CTX_use_certificate(context, C.OPENSSL_sk_value(chain, 0)) == 1
  for i = 1, C.OPENSSL_sk_num(chain) - 1 do
    taken = taken and C.SSL_CTX_ctrl(context, CHAIN_CERT, COUNTED, C.OPENSSL_sk_value(chain, i)) == 1
  end
  if taken then
    return nil
  end
  local reason = C.ERR_reason_error_string(C.ERR_peek_last_error())
  return reason ~= nil and ffi.string(reason) or "it does not say why"
end

-- Gives the days that a pair is still valid for; or nil and what is wrong with it.
local function judge(cert, key)
  -- The certificates of its authorities come after it, and are read too.
  local chain = ssl.parse_pem_cert(cert)
  local der = chain and ssl.cert_pem_to_der(cert)
  local certificate = der and read(C.d2i_X509, C.X509_free, der)
  if not certificate then
    return nil, CERT .. " is no certificate (PEM), or not a whole one"
  end
  if string.find(key, "ENCRYPTED", 1, true) then
    return nil, KEY .. " has a passphrase"
  end
  der = ssl.priv_key_pem_to_der(key)
  local secret = der and read(C.d2i_AutoPrivateKey, C.EVP_PKEY_free, der)
  if not secret then
    return nil, KEY .. " is no key (PEM), or not a whole one"
  end
  if C.X509_check_private_key(certificate, secret) ~= 1 then
    return nil, "the key in " .. KEY .. " is not that of the certificate in " .. CERT
  end
  local begins, ends = days(C.X509_get0_notBefore(certificate)), days(C.X509_get0_notAfter(certificate))
  if not ends or ends <= 0 then
    return nil, "the certificate in " .. CERT .. " has expired"
  end
  if not begins or begins > 0 then
    return nil, "the certificate in " .. CERT .. " is not valid yet"
  end
  local against = refusal(chain)
  if against then
    return nil, "OpenSSL refuses the certificate in " .. CERT .. ": " .. against
  end
  return ends
end

-- A file that is mounted alone stays the one that it was when another takes its name outside.
local function replaced()
  local mounts = FOLDER == "" and contents("/proc/self/mountinfo") or ""
  return string.find(mounts, "//deleted /run/secrets/tls%-") ~= nil
end

-- What is in force, what the last look saw, and what was told of it.
local force, seen, told

local function tell(problem)
  if problem ~= told then
    ngx.log(ngx.ERR, "the renewed certificate is not taken: ", problem, " (", SETTINGS, "); the one before stays")
  end
  told = problem
end

local function take(pair, left)
  local kept, problem = dict:safe_set("pair", pair)
  if not kept then
    return tell("there is no memory for it: " .. problem)
  end
  dict:incr("version", 1, 0)
  force, told = pair, nil
  ngx.log(ngx.NOTICE, "the certificate was renewed: new connections get it. It is valid for ", math.floor(left),
    " days more")
end

local function look()
  local cert, problem = contents(CERT)
  local key
  if cert then
    key, problem = contents(KEY)
  end
  local found = problem or both(cert, key)
  local twice = found == seen
  if not twice then
    seen, told = found, nil
  end
  if found == force then
    if replaced() then
      tell("another file took the name of one that is mounted alone, and a container does not see it. 'docker compose " ..
        "restart router' shows it the new one; a folder (TANDEM_TLS_FOLDER) needs none of that")
    end
  elseif twice and problem then
    tell(problem)
  elseif twice then
    local left
    left, problem = judge(cert, key)
    -- What OpenSSL says of a bad pair is no error of the next connection.
    C.ERR_clear_error()
    if left then
      take(found, left)
    else
      tell(problem)
    end
  end
end

-- In each worker, as it starts; one of them looks.
function M.work()
  local cert, key = contents(BEGUN[1]), contents(BEGUN[2])
  if not cert or not key or ngx.worker.id() ~= 0 then
    return
  end
  force = dict:get("pair") or both(cert, key)
  ngx.timer.every(OFTEN, look)
end

-- The pair that this worker read last, and which version of it.
local chain, secret, known

-- In each handshake, before the certificate is sent.
function M.serve()
  local version = dict:get("version")
  if not version then
    return
  end
  if version ~= known then
    local cert, key = parted(dict:get("pair"))
    chain, secret = assert(ssl.parse_pem_cert(cert)), assert(ssl.parse_pem_priv_key(key))
    known = version
  end
  -- Of another kind (RSA, ECDSA), the old one would be offered beside it.
  assert(ssl.clear_certs())
  assert(ssl.set_cert(chain))
  assert(ssl.set_priv_key(secret))
end

return M
