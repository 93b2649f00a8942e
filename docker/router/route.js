// Chooses the server of a request by its served model name, and speaks OpenAI's error shape.

import table from 'routes.js';

// `table`: services {served model name or alias: service} and models [entries of GET /v1/models].
// Own properties only: a model called "constructor" must not find Object's.
function serviceOf(model) {
    return typeof model === 'string' && Object.prototype.hasOwnProperty.call(table.services, model)
        ? table.services[model] : undefined;
}

function names() {
    return table.models.map((m) => m.id).join(', ');
}

function fail(r, status, code, message, param) {
    const type = status >= 500 ? 'server_error' : 'invalid_request_error';
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify({ error: { message, type, param: param || null, code } }) + '\n');
}

function unknown(r, model) {
    fail(r, 404, 'model_not_found', `The model '${model}' does not exist. Models here: ${names()}.`, 'model');
}

async function choose(r) {
    if (r.method !== 'POST') {
        r.headersOut.Allow = 'POST';
        fail(r, 405, 'method_not_allowed', `${r.uri} takes POST, not ${r.method}.`);
        return;
    }
    let body;
    try {
        body = await r.readRequestJSON();
    } catch (e) {
        fail(r, 400, 'invalid_json', `The request's body is not JSON: ${e.message}`);
        return;
    }
    const model = body === null || typeof body !== 'object' ? undefined : body.model;
    if (typeof model !== 'string' || model === '') {
        fail(r, 400, 'model_required', `Name a model in the body, as in {"model": "${table.models[0].id}"}.`, 'model');
        return;
    }
    const service = serviceOf(model);
    r.variables.tandem_model = model;
    if (service === undefined) {
        unknown(r, model);
        return;
    }
    r.variables.tandem_service = service;
}

function unavailable(r) {
    const service = r.variables.tandem_service;
    r.headersOut['Retry-After'] = '5';
    const connected = r.variables.upstream_connect_time;
    if (connected !== undefined && connected !== '' && connected !== '-') {
        fail(r, 503, 'model_broke_off', `The server of '${r.variables.tandem_model}' took the request and gave no ` +
            `answer. 'python -m orchestrator logs ${service}' shows why.`, 'model');
        return;
    }
    fail(r, 503, 'model_not_ready', `The model '${r.variables.tandem_model}' is not running, or still starting. ` +
        `'python -m orchestrator status' tells which; 'python -m orchestrator up ${service}' starts it.`, 'model');
}

// Refuses whatever is not a read; true when it did.
function refused(r) {
    if (r.method === 'GET' || r.method === 'HEAD') {
        return false;
    }
    r.headersOut.Allow = 'GET, HEAD';
    fail(r, 405, 'method_not_allowed', `${r.uri} takes GET, not ${r.method}.`);
    return true;
}

function models(r) {
    if (refused(r)) {
        return;
    }
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify({ object: 'list', data: table.models }) + '\n');
}

function model(r) {
    if (refused(r)) {
        return;
    }
    const wanted = r.variables.tandem_wanted;
    const service = serviceOf(wanted);
    if (service === undefined) {
        unknown(r, wanted);
        return;
    }
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(table.models.find((m) => serviceOf(m.id) === service)) + '\n');
}

function digest(r) {
    r.return(200, JSON.stringify({ digest: table.digest }) + '\n');
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

function error(r) {
    const status = Number(r.variables.status);
    const known = MESSAGES[status] || ['bad_request', 'The request is not valid HTTP.'];
    fail(r, status, known[0], known[1]);
}

export default { choose, unavailable, models, model, digest, error };
