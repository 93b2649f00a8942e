// Chooses the server of a request by its served model name, and who gets the request: that server when its route is open,
// else the activator.

import fs from 'fs';
import table from 'routes.js';
import answers from 'answers.js';
import counts from 'counts.js';

const fail = answers.fail;
const ACTIVATOR = 'http://unix:/run/tandem/activator.sock:';
// The activator makes a file here for each model whose route is open. No other server is ever asked: one that sleeps
// hangs or dies of a request, one that is about to stop would break it off.
const OPEN = '/run/tandem/open/';

// `table`: services {served model name or alias: service} and models [entries of GET /v1/models].
// Own properties only: a model called "constructor" must not find Object's.
function serviceOf(model) {
    return typeof model === 'string' && Object.prototype.hasOwnProperty.call(table.services, model)
        ? table.services[model] : undefined;
}

function names() {
    return table.models.map((m) => m.id).join(', ');
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
    // Counted before the look: whoever closes the route and then reads the counts misses no request.
    toServer(r, 'server');
    if (!fs.existsSync(OPEN + service)) {
        toActivator(r, 'activator');
    }
}

// `way` is who was asked, in order: the access log shows it, and again() goes by it.
function toServer(r, way) {
    counts.start(r, r.variables.tandem_service);
    r.variables.tandem_held = '';
    r.variables.tandem_to = `http://${r.variables.tandem_service}:8000`;
    r.variables.tandem_way = way;
}

function toActivator(r, way) {
    counts.stop(r);
    r.variables.tandem_held = r.variables.tandem_service;
    r.variables.tandem_to = ACTIVATOR;
    r.variables.tandem_way = way;
}

// The one that was asked last gave no answer. When it got nothing of the request, another may answer it.
function again(r) {
    const way = r.variables.tandem_way;
    if (way !== '' && connected(r)) {
        brokeOff(r, way.endsWith('activator'));
    } else if (way === 'server') {
        r.variables.tandem_unreachable = '1';
        toActivator(r, 'server, activator');
    } else {
        r.headersOut['Retry-After'] = '2';
        fail(r, 503, 'activator_away', 'The activator, which brings models up, does not answer. It starts again by itself; ' +
            'if not, \'python -m orchestrator logs activator\' shows why.');
    }
}

// nginx lists a time for each connection that was tried, and - for one that failed.
function connected(r) {
    const last = (r.variables.upstream_connect_time || '').split(/[,:] ?/).pop().trim();
    return last !== '' && last !== '-';
}

function brokeOff(r, activator) {
    const model = r.variables.tandem_model;
    r.headersOut['Retry-After'] = '5';
    if (activator) {
        fail(r, 503, 'model_broke_off', `The activator ended while it held the request for '${model}'. ` +
            '\'python -m orchestrator logs activator\' shows why.', 'model');
        return;
    }
    fail(r, 503, 'model_broke_off', `The server of '${model}' took the request and gave no answer. ` +
        `'python -m orchestrator logs ${r.variables.tandem_service}' shows why.`, 'model');
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

export default { choose, again, models, model, digest };
