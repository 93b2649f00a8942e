// Speaks OpenAI's error shape.

function fail(r, status, code, message, param) {
    const type = status >= 500 ? 'server_error' : 'invalid_request_error';
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify({ error: { message, type, param: param || null, code } }) + '\n');
}

const MESSAGES = {
    404: ['not_found', 'There is no such path here. GET /v1/models lists the models.'],
    405: ['method_not_allowed', 'This path does not take this method.'],
    408: ['request_timeout', 'The request took too long to arrive.'],
    413: ['request_too_large', 'The request\'s body is larger than 64 MiB.'],
    414: ['uri_too_long', 'The request\'s address is too long.'],
    500: ['router_error', 'The router failed; \'python -m orchestrator logs router\' shows why.'],
    501: ['not_implemented', 'The router does not know this method or transfer encoding.'],
    505: ['http_version_not_supported', 'The router speaks HTTP/1.0 and HTTP/1.1.'],
};

// Answers for nginx when it refuses a request by itself.
function error(r) {
    const status = Number(r.variables.status);
    const known = MESSAGES[status] || ['bad_request', 'The request is not valid HTTP.'];
    fail(r, status, known[0], known[1]);
}

export default { fail, error };
