// An operator's SMSC for tests: the npm package "smpp" speaks SMPP 3.4, this file only decides what happens.
//
// It listens on 127.0.0.1 and prints one JSON line per event; the field "event" is one of
//   listening {port} · bind {session, kind, system_id, ok} · submit {n, session, to, from, from_ton, from_npi, to_ton,
//   to_npi, coding, esm_class, udh, sar, text, payload, registered, status, id} · deliver {kind, to, status} ·
//   closed {session} · totals {submits, accepted, refused, parts, reports, replies}, the last one, at SIGTERM.
// "status" of a submit is the number that was answered, null for no answer; "text" is the decoded text of the part.
//
// Environment: PORT (0: any free one) · PASSWORD ("gateway") · DLR_MS until a report (50) · ANSWER_MS until an answer (0)
// THROTTLE submits a second, above it ESME_RTHROTTLED (0: no limit).
//
// The last three digits of the recipient choose the outcome; whatever is not listed is accepted and delivered.
'use strict';

const smpp = require('smpp');

const setting = (name, otherwise) => Number(process.env[name] || otherwise);
const DLR_MS = setting('DLR_MS', 50);
const ANSWER_MS = setting('ANSWER_MS', 0);
const THROTTLE = setting('THROTTLE', 0);
const PASSWORD = process.env.PASSWORD || 'gateway';
const REPEATS = 20; // how often a deliver_sm that was not taken is offered again
const REPEAT_MS = 100;

const DELIVERED = [{ stat: 'DELIVRD' }];
const SCENARIOS = {
  901: { refuse: smpp.ESME_RINVDSTADR },
  902: { refuse: smpp.ESME_RTHROTTLED, once: true },
  903: { reports: [{ stat: 'UNDELIV', err: '011' }] },
  904: { reports: [{ stat: 'EXPIRED', err: '027' }] },
  905: { reports: [] },
  906: { early: true },
  907: { reports: [{ stat: 'DELIVRD' }, { stat: 'DELIVRD' }] },
  908: { refuse: smpp.ESME_RMSGQFUL },
  909: { drop: true },
  910: { reply: 'STOP' },
  911: { reply: 'Привет, это ответ' },
  912: { reply: 'one long answer '.repeat(25) }, // 400 characters: three parts
  913: { reports: [{ stat: 'ACCEPTD' }, { stat: 'DELIVRD' }] },
  914: { silent: true },
  915: { reply: 'СТОП' },
  916: { hexadecimal: true },
};
const STATE = { ENROUTE: 1, DELIVRD: 2, EXPIRED: 3, DELETED: 4, UNDELIV: 5, ACCEPTD: 6, UNKNOWN: 7, REJECTD: 8 };

const totals = { submits: 0, accepted: 0, refused: 0, parts: 0, reports: 0, replies: 0 };
const refusedOnce = new Set();
let sessions = 0;
let references = 0;
let thisSecond = { at: 0, count: 0 };

const say = (event, fields = {}) => console.log(JSON.stringify({ event, ...fields }));
const later = (ms, act) => (ms ? setTimeout(act, ms) : act());
const hex = (buffer) => buffer.toString('hex');

function tooFast() {
  if (!THROTTLE) return false;
  const at = Math.floor(Date.now() / 1000);
  if (thisSecond.at !== at) thisSecond = { at, count: 0 };
  thisSecond.count += 1;
  return thisSecond.count > THROTTLE;
}

// A deliver_sm is offered again until it is taken, as an operator would.
function deliver(line, kind, fields, tries = 0) {
  const open = [...lines].reverse().find((one) => one.receives);
  const over = line.receives && lines.has(line) ? line : open;
  const again = () => tries < REPEATS && setTimeout(() => deliver(line, kind, fields, tries + 1), REPEAT_MS);
  if (!over) return again();
  return over.session.deliver_sm({ ...fields }, (answer) => {
    say('deliver', { kind, to: fields.destination_addr, status: answer.command_status });
    if (answer.command_status !== 0) again();
  });
}

function report(line, submit, id, { stat, err = '000' }, withTlv) {
  const day = new Date().toISOString().replace(/\D/g, '').slice(2, 12);
  const count = stat === 'DELIVRD' ? '001' : '000';
  totals.reports += 1;
  deliver(line, stat, {
    esm_class: smpp.ESM_CLASS.MC_DELIVERY_RECEIPT,
    source_addr_ton: 1,
    source_addr_npi: 1,
    source_addr: submit.destination_addr,
    destination_addr: submit.source_addr,
    short_message:
      `id:${id} sub:001 dlvrd:${count} submit date:${day} done date:${day} stat:${stat} err:${err} text:`,
    ...(withTlv ? { receipted_message_id: id, message_state: STATE[stat] } : {}),
  });
}

function reply(line, submit, text) {
  const wide = [...text].some((character) => character > '\x7f');
  const room = wide ? { whole: 70, part: 67 } : { whole: 160, part: 153 };
  const fields = {
    source_addr_ton: 1,
    source_addr_npi: 1,
    source_addr: '+' + submit.destination_addr.replace(/^\+/, ''), // sent to 7…, answered from +7…: some operators do
    destination_addr: submit.source_addr,
    data_coding: wide ? 8 : 0,
  };
  totals.replies += 1;
  if (text.length <= room.whole) {
    deliver(line, 'reply', { ...fields, esm_class: 0, short_message: text });
    return;
  }
  const total = Math.ceil(text.length / room.part);
  references = (references + 1) & 0xff;
  for (let n = 1; n <= total; n += 1) {
    const message = text.slice((n - 1) * room.part, n * room.part);
    const udh = Buffer.from([5, 0, 3, references, total, n]);
    deliver(line, 'reply', { ...fields, esm_class: 0x40, short_message: { udh, message } });
  }
}

function take(line, pdu) {
  const scenario = SCENARIOS[pdu.destination_addr.slice(-3)] || {};
  const n = (totals.submits += 1);
  const id = scenario.hexadecimal ? (0xabc000 + n).toString(16) : 'op-' + String(n).padStart(7, '0');
  if (pdu.esm_class & 0x40 || pdu.sar_total_segments) totals.parts += 1;

  let status = 0;
  if (scenario.refuse && !(scenario.once && refusedOnce.has(pdu.destination_addr))) {
    status = scenario.refuse;
    refusedOnce.add(pdu.destination_addr);
  }
  if (tooFast()) status = smpp.ESME_RTHROTTLED;
  if (status === 0 && (scenario.drop || scenario.silent)) status = null;
  if (status === 0) totals.accepted += 1;
  else if (status !== null) totals.refused += 1;

  const { udh, message } = pdu.short_message;
  say('submit', {
    n,
    session: line.number,
    to: pdu.destination_addr,
    from: pdu.source_addr,
    from_ton: pdu.source_addr_ton,
    from_npi: pdu.source_addr_npi,
    to_ton: pdu.dest_addr_ton,
    to_npi: pdu.dest_addr_npi,
    coding: pdu.data_coding,
    esm_class: pdu.esm_class,
    udh: udh ? udh.map(hex) : null,
    sar: pdu.sar_total_segments ? [pdu.sar_msg_ref_num, pdu.sar_total_segments, pdu.sar_segment_seqnum] : null,
    text: message || '',
    payload: pdu.message_payload ? pdu.message_payload.message : null,
    registered: pdu.registered_delivery,
    status,
    id: status === 0 ? id : null,
  });

  if (scenario.drop && status === null) return line.session.destroy();
  if (status === null) return undefined;
  if (status !== 0) return later(ANSWER_MS, () => line.session.send(pdu.response({ command_status: status })));

  const wanted = (pdu.registered_delivery & 3) !== 0;
  const reports = wanted ? scenario.reports || DELIVERED : [];
  const shown = scenario.hexadecimal ? String(parseInt(id, 16)) : id;
  const send = () => {
    reports.forEach((one, at) => later(at && DLR_MS, () => report(line, pdu, shown, one, !scenario.hexadecimal)));
  };
  if (scenario.early) send();
  later(ANSWER_MS, () => line.session.send(pdu.response({ message_id: id })));
  if (!scenario.early) setTimeout(send, ANSWER_MS + DLR_MS);
  if (scenario.reply) setTimeout(() => reply(line, pdu, scenario.reply), ANSWER_MS + 2 * DLR_MS);
  return undefined;
}

const lines = new Set();

function connected(session) {
  const line = { session, number: (sessions += 1), receives: false };
  const bind = (kind, pdu) => {
    const ok = pdu.password === PASSWORD;
    say('bind', { session: line.number, kind, system_id: pdu.system_id, ok });
    if (ok) {
      line.receives = kind !== 'transmitter';
      lines.add(line);
      session.send(pdu.response({ system_id: 'operator' }));
    } else {
      session.send(pdu.response({ command_status: smpp.ESME_RINVPASWD }), null, () => session.close());
    }
  };
  for (const kind of ['transceiver', 'transmitter', 'receiver']) session.on(`bind_${kind}`, (pdu) => bind(kind, pdu));
  session.on('submit_sm', (pdu) => {
    if (lines.has(line)) take(line, pdu);
    else session.send(pdu.response({ command_status: smpp.ESME_RINVBNDSTS }));
  });
  session.on('enquire_link', (pdu) => session.send(pdu.response()));
  session.on('unbind', (pdu) => session.send(pdu.response(), null, () => session.close()));
  session.on('close', () => {
    lines.delete(line);
    say('closed', { session: line.number });
  });
  session.on('error', () => lines.delete(line));
}

const server = smpp.createServer(connected);
server.listen(setting('PORT', 0), '127.0.0.1', () => say('listening', { port: server.address().port }));

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    say('totals', totals);
    process.exit(0);
  });
}
