// Decides what of Docker's API the activator may use: it looks at the containers of its own project, follows them, starts
// and stops its servers. What is not named here is refused; Docker gets a request that was written here.

const PROJECT = 'com.docker.compose.project';
const SERVICE = 'com.docker.compose.service';
// Marks the servers of model profiles; `gpus` is the service that reads the GPUs.
const PROFILE = 'tandem.profile';
const READER = 'gpus';

const FLAG = /^(0|1|true|false|True|False)$/;
const NUMBER = /^-?[0-9]+$/;
const TIME = /^[0-9A-Za-z.:+-]+$/;
const SIGNAL = /^[A-Z0-9]+$/;
// Of a container: what may be asked, and with which arguments. Those with `server` change it.
const ACTIONS = {
    'GET json': {},
    'GET top': {},
    'GET logs': { args: { stdout: FLAG, stderr: FLAG, follow: FLAG, timestamps: FLAG, since: TIME, until: TIME, tail: TIME } },
    'POST start': { server: true },
    'POST stop': { server: true, args: { t: NUMBER, signal: SIGNAL } },
    'POST kill': { server: true, args: { signal: SIGNAL } },
};
// Filters of a client that make a list shorter.
const NARROWER = ['event', 'label', 'status'];

// Raised for what is refused; its message is for the client.
class Refusal extends Error {}

// The request line as it came: nothing that a path could be taken for another by (%, //, .., an address with a host).
const LINE = /^(GET|POST) (\/v1\.[0-9]{1,3})?((?:\/[A-Za-z0-9_][A-Za-z0-9_.-]*)+)(?:\?([^ #]*))? HTTP\/1\.1$/;

async function admit(r) {
    try {
        r.variables.engine_asks = await asked(r);
    } catch (e) {
        if (!(e instanceof Refusal)) {
            throw e;
        }
        if (!e.answered) {
            say(r, 403, `the engine-proxy refuses this: ${e.message}`);
        }
    }
}

// Gives what to ask Docker for. Throws a Refusal.
async function asked(r) {
    if (!process.env.TANDEM_PROJECT) {
        // It would match what has no project's label.
        throw new Refusal('TANDEM_PROJECT is not set');
    }
    const line = LINE.exec(r.variables.request);
    if (line === null) {
        throw new Refusal('it is none of the requests that the activator has');
    }
    checkPlain(r);
    const [, method, version, path, query] = line;
    const args = parsed(query || '');
    const at = version || '';
    if (method === 'GET' && (path === '/_ping' || path === '/version')) {
        return written(at + path, args, {});
    }
    if (method === 'GET' && path === '/containers/json') {
        args.filters = filters(args.filters, {});
        return written(at + path, args, { all: FLAG, limit: NUMBER, size: FLAG, trunc_cmd: FLAG, filters: null });
    }
    if (method === 'GET' && path === '/events') {
        args.filters = filters(args.filters, { type: ['container'] });
        return written(at + path, args, { since: TIME, until: TIME, filters: null });
    }
    const [, top, name, verb, more] = path.split('/');
    const action = top === 'containers' && more === undefined ? ACTIONS[`${method} ${verb}`] : undefined;
    if (action === undefined) {
        throw new Refusal('it is none of the requests that the activator has');
    }
    const rest = written('', args, action.args || {});
    return `${at}/containers/${await ours(r, name, action.server)}/${verb}${rest}`;
}

// A body, or a connection that becomes something else, belongs to no request that is let through.
function checkPlain(r) {
    const headers = r.headersIn;
    if (headers['Transfer-Encoding'] !== undefined || (headers['Content-Length'] || '0') !== '0') {
        throw new Refusal('it has a body');
    }
    if (headers.Upgrade !== undefined) {
        throw new Refusal('it asks for another protocol');
    }
}

function parsed(query) {
    const found = Object.create(null);
    query.split('&').filter((part) => part !== '').forEach((part) => {
        const split = part.indexOf('=');
        const [key, value] = split < 0 ? [part, ''] : [part.slice(0, split), part.slice(split + 1)];
        if (!/^[a-z_]+$/.test(key) || key in found) {
            throw new Refusal(`its argument ${key} is not known, or comes twice`);
        }
        found[key] = value;
    });
    return found;
}

// Puts a path and its arguments together; `allowed` gives each argument's shape, null for one that was made here.
function written(path, args, allowed) {
    const words = Object.keys(args).map((key) => {
        const shape = Object.prototype.hasOwnProperty.call(allowed, key) ? allowed[key] : undefined;
        if (shape === undefined || (shape !== null && !shape.test(args[key]))) {
            throw new Refusal(`its argument ${key} may not be there, or have this value`);
        }
        return `${key}=${args[key]}`;
    });
    return words.length ? `${path}?${words.join('&')}` : path;
}

// A client's filters, with ours over them: the project's containers alone. Docker wants every label of the list.
function filters(sent, more) {
    const found = sent === undefined ? {} : read(sent);
    const result = Object.create(null);
    Object.keys(found).forEach((key) => {
        const values = found[key];
        if (more[key] !== undefined) {
            return;
        }
        if (!NARROWER.includes(key) || !Array.isArray(values) || !values.every((value) => typeof value === 'string')) {
            throw new Refusal(`its filter ${key} may not be there, or is no list of strings`);
        }
        result[key] = values;
    });
    result.label = [`${PROJECT}=${process.env.TANDEM_PROJECT}`].concat(result.label || []);
    return encodeURIComponent(JSON.stringify(Object.assign(result, more)));
}

function read(sent) {
    try {
        const found = JSON.parse(decodeURIComponent(sent.replace(/\+/g, ' ')));
        if (found !== null && typeof found === 'object' && !Array.isArray(found)) {
            return found;
        }
    } catch (e) {
        // Said below.
    }
    throw new Refusal('its filters are no JSON object');
}

// Gives the whole id of a container of this project, so that what is looked at is what is asked for.
async function ours(r, name, server) {
    r.variables.engine_name = name;
    const answer = await r.subrequest('/-look', { method: 'GET' });
    if (answer.status !== 200) {
        // Docker's own words: there is no such container, or the name stands for several.
        r.headersOut['Content-Type'] = 'application/json';
        r.return(answer.status, answer.responseText);
        const refusal = new Refusal('');
        refusal.answered = true;
        throw refusal;
    }
    const found = JSON.parse(answer.responseText);
    const labels = found.Config.Labels || {};
    const own = (key) => (Object.prototype.hasOwnProperty.call(labels, key) ? labels[key] : undefined);
    if (own(PROJECT) !== process.env.TANDEM_PROJECT) {
        throw new Refusal(`${name} is no container of this project`);
    }
    if (server && own(PROFILE) === undefined && own(SERVICE) !== READER) {
        throw new Refusal(`${name} is no model's server`);
    }
    return found.Id;
}

function say(r, status, message) {
    r.headersOut['Content-Type'] = 'application/json';
    r.return(status, JSON.stringify({ message }) + '\n');
}

// What nginx itself refused.
function refused(r) {
    say(r, 403, 'the engine-proxy refuses this: it is none of the requests that the activator has');
}

function broken(r) {
    say(r, 502, 'the engine-proxy has no answer from Docker');
}

export default { admit, refused, broken };
