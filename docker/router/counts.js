// Owns how many requests each server has in flight from here. A count belongs to one worker process, so that one that is
// killed takes its counts with it, as it takes its connections.

import fs from 'fs';

// Counts a request until it ends, or until stop() when its server was not the one to answer.
function start(r, service) {
    ngx.shared.in_flight.incr(`${service} ${process.pid}`, 1);
    r.variables.tandem_counted = service;
}

function stop(r) {
    const service = r.variables.tandem_counted;
    if (service) {
        r.variables.tandem_counted = '';
        ngx.shared.in_flight.incr(`${service} ${process.pid}`, -1);
    }
}

// The access log's format reads this, and nothing else does: nginx logs every request exactly once, when it is over,
// however it ended. Gives what the log shows: where the request went.
function ended(r) {
    stop(r);
    return r.variables.tandem_way;
}

function works(pid) {
    try {
        return fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('nginx: worker');
    } catch (e) {
        return false;
    }
}

// GET /in-flight: {service: requests}; one that never had a request is not in it.
function list(r) {
    const found = {};
    const workers = {};
    ngx.shared.in_flight.items().forEach(([key, count]) => {
        const [service, pid] = key.split(' ');
        if (workers[pid] === undefined) {
            workers[pid] = works(pid);
        }
        if (workers[pid]) {
            found[service] = (found[service] || 0) + count;
        } else {
            // No worker but its own changes a count, so this one is nobody's.
            ngx.shared.in_flight.delete(key);
        }
    });
    r.headersOut['Content-Type'] = 'application/json';
    r.return(200, JSON.stringify(found) + '\n');
}

export default { start, stop, ended, list };
