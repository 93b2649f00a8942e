// Says who may ask the activator for what is not a client's business: this machine, and whoever has the admin key.

import crypto from 'crypto';
import fs from 'fs';
import answers from 'answers.js';

const KEY = '/run/secrets/admin-key';
const LOOPBACK = /^(localhost|127\.[0-9]+\.[0-9]+\.[0-9]+|\[::1\]|::1)$/;

function admit(r) {
    let problem = 'This path is for the machine that Tandem runs on, through the loopback address, and for whoever ' +
        'sends its admin key: Authorization: Bearer KEY. The setting TANDEM_ADMIN_KEY_FILE names the file with the key.';
    try {
        if (isLocal(r) || hasKey(r)) {
            return;
        }
    } catch (e) {
        r.error(`the admin key cannot be read: ${e.message}`);
        problem = 'The router cannot read the file with the admin key: user 1000 must be able to.';
    }
    answers.fail(r, 403, 'admin_only', problem);
}

// Reads the key at each request: one that was changed counts at once. Throws when it cannot be read.
function hasKey(r) {
    const key = fs.readFileSync(KEY, 'utf8').trim();
    const sent = /^Bearer +(\S+)\s*$/i.exec(r.headersIn.Authorization || '');
    return key !== '' && sent !== null && same(sent[1], key);
}

// Takes as long for every wrong key: digests of one length are compared to their end.
function same(one, other) {
    const [a, b] = [one, other].map((text) => crypto.createHash('sha256').update(text).digest('hex'));
    let differ = 0;
    for (let i = 0; i < a.length; i++) {
        differ |= a.charCodeAt(i) ^ b.charCodeAt(i);
    }
    return differ === 0;
}

// The port is published on a loopback address, so only this machine reaches it. What a browser there does for a page of
// somebody else's shows in Host, where the page gave this address another name, or in Origin.
function isLocal(r) {
    if (!LOOPBACK.test(process.env.TANDEM_BIND || '')) {
        return false;
    }
    const host = r.headersIn.Host || 'localhost';
    const origin = r.headersIn.Origin;
    return LOOPBACK.test(host.replace(/:[0-9]+$/, '')) && (origin === undefined || origin === `http://${host}`);
}

export default { admit };
