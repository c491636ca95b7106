/*
 * All SQL of the project, but for the schema (migrate.c) and the settings of
 * a connection (db.c). Texts only: nothing here prepares or runs anything.
 * Values are always bound; a text that is built at run time does not exist.
 */
#include <sendq/quality.h>

#include "sql.h"

#include <stddef.h>

/* recipient.id and attempt.id of a message lie between these. */
#define OF_MESSAGE(p) "id BETWEEN (" p ") << 16 AND ((" p ") << 16) + 65535"
#define ATTEMPTS_OF(p) "id BETWEEN (" p ") << 20 AND ((" p ") << 20) + 1048575"

#define MESSAGE_COLUMNS \
	"m.id, m.message_id, m.sender, m.header_from, m.subject, r.name, m.source, m.envid, m.size, m.stored, m.sha256," \
	" m.uid, m.submitted_ms, m.not_before_ms, m.expires_ms, m.priority, m.ret, m.flags, m.auto_submitted, m.duplicates"

#define LEDGER_COLUMNS \
	"l.id, l.message_id, l.recipient, lower(hex(l.sha256)), r.name, l.provider_id, l.source, l.accepted_ms, l.message, l.epoch," \
	" (SELECT count(*) FROM ledger o WHERE o.mid_hash = l.mid_hash AND o.message_id = l.message_id AND o.recipient = l.recipient)," \
	" l.reply_code, l.reply_enhanced, l.reply_text, l.unknown_copies"

#define COLUMN(name) ", coalesce(y." #name ", 0.0)"
#define QUALITY_COLUMNS SQ_QUALITY_LIST(COLUMN)
#define VALUE(name) ", ?"

#define LINK_COLUMNS \
	"r.name, l.network, l.state, l.since_ms, l.next_try_ms, l.cause, l.stopped, l.failures, l.connects, l.connect_failures," \
	" l.cuts, l.octets, l.seconds, l.rtt_us, l.goodput_bps, l.last_ok_ms, l.last_fail_ms, l.caps, l.size_limit, l.address," \
	" l.reply_code, l.reply_enhanced, l.reply_text, coalesce(y.at_ms, 0)" QUALITY_COLUMNS
#define LINK_TABLES "link l JOIN route r ON r.id = l.route LEFT JOIN quality y ON y.route = l.route AND y.network = l.network"

#define REQUEST_COLUMNS "id, kind, message, address, asked_ms, done_ms, ok, result, number, code, enhanced, words, detail"

static const char *const texts[SQL_COUNT] = {
	/* connection and transaction */
	[SQL_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[SQL_BEGIN_READ] = "BEGIN",
	[SQL_COMMIT] = "COMMIT",
	[SQL_ROLLBACK] = "ROLLBACK",
	[SQL_SYNC_FULL] = "PRAGMA synchronous = FULL",
	[SQL_SYNC_NORMAL] = "PRAGMA synchronous = NORMAL",
	[SQL_APPLICATION_ID] = "PRAGMA application_id",
	[SQL_USER_VERSION] = "PRAGMA user_version",
	[SQL_COUNT_SCHEMA] = "SELECT count(*) FROM sqlite_schema",
	[SQL_PAGE_COUNT] = "PRAGMA page_count",
	[SQL_FREE_PAGES] = "PRAGMA freelist_count",
	[SQL_QUICK_CHECK] = "PRAGMA quick_check(1)",
	[SQL_VACUUM_SLICE] = "PRAGMA incremental_vacuum(256)",

	/* meta and routes */
	[SQL_META_GET] = "SELECT value FROM meta WHERE key = ?",
	[SQL_META_SET] = "UPDATE meta SET value = ?2 WHERE key = ?1",
	[SQL_ROUTE_FIND] = "SELECT id FROM route WHERE name = ?",
	[SQL_ROUTE_ADD] = "INSERT INTO route (name) VALUES (?) RETURNING id",
	[SQL_ROUTE_EACH] = "SELECT id, name FROM route ORDER BY id",

	/* submission */
	[SQL_NEXT_ID] = "SELECT 1 + max(coalesce((SELECT max(id) FROM message), 0), coalesce((SELECT max(id) FROM ingest), 0), 32767)",
	[SQL_INGEST_ADD] = "INSERT INTO ingest VALUES (?)",
	[SQL_INGEST_DELETE] = "DELETE FROM ingest WHERE id = ?",
	[SQL_INGEST_AFTER] = "SELECT id FROM ingest WHERE id > ? ORDER BY id LIMIT 1",
	[SQL_INGEST_ANY] = "SELECT EXISTS (SELECT 1 FROM ingest)",
	[SQL_CONTENT_ADD] = "INSERT INTO content VALUES (?, ?)",
	[SQL_CONTENT_GET] = "SELECT data FROM content WHERE id = ?",
	[SQL_CONTENT_GET_OWN] = "SELECT data FROM content WHERE id = ?",
	[SQL_CONTENT_SIZE] = "SELECT coalesce(sum(length(data)), 0) FROM content WHERE id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575",
	[SQL_CONTENT_FIRST] = "SELECT id, length(data) FROM content WHERE id BETWEEN ?1 << 20 AND (?1 << 20) + 1048575 LIMIT 1",
	[SQL_CONTENT_DELETE] = "DELETE FROM content WHERE id = ?",
	[SQL_SAME_MID] = "SELECT id, stored, sha256 FROM message WHERE mid_hash = ?1 AND message_id = ?2 AND size = ?3"
		" AND submitted_ms >= ?4 ORDER BY id",
	[SQL_MESSAGE_ADD] = "INSERT INTO message (id, message_id, mid_hash, sender, header_from, subject, route, source, uid, size,"
		" stored, flags, ret, envid, priority, auto_submitted, submitted_ms, not_before_ms, expires_ms, duplicates)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_RECIPIENT_ADD] = "INSERT INTO recipient (id, address, orcpt, notify, state, state_ms, route, priority, next_try_ms, expires_ms)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_OPEN_OF] = "SELECT count(*) FROM message WHERE uid = ? AND done_ms = 0 AND source = 'socket'",
	[SQL_MESSAGE_FACTS] = "SELECT size, stored FROM message WHERE id = ?",

	/* the one writer of recipient.state */
	[SQL_STATE_MOVE] = "UPDATE recipient SET state = ?3, state_ms = ?4, next_try_ms = ?5, reported_ms = ?6, waits = ?7 WHERE id = ?1 AND state = ?2",
	[SQL_RECIPIENT_REPLY] = "UPDATE recipient SET reply_code = ?2, reply_enhanced = ?3, reply_text = ?4 WHERE id = ?1",
	[SQL_MESSAGE_OPEN] = "SELECT 1 FROM recipient WHERE " OF_MESSAGE("?1")
		" AND (state < 5 OR (state IN (6, 7) AND reported_ms = 0)) ORDER BY id DESC LIMIT 1",
	[SQL_MESSAGE_DONE] = "UPDATE message SET done_ms = ?2 WHERE id = ?1 AND (done_ms = 0) <> (?2 = 0)",
	[SQL_STATE_IDS] = "SELECT id, notify FROM recipient WHERE state = ?1 AND state < 5 ORDER BY id",
	[SQL_STATE_ATTEMPTS] = "SELECT DISTINCT p.attempt FROM recipient p JOIN attempt a ON a.id = p.attempt"
		" WHERE p.state IN (1, 2, 3) AND p.state < 5 AND a.ended_ms = 0",

	/* what is due */
	[SQL_DUE_PRIORITY] = "SELECT max(priority) FROM recipient WHERE state = 0 AND route = ?1 AND priority < ?2",
	[SQL_DUE] = "SELECT id >> 16 FROM recipient WHERE state = 0 AND route = ?1 AND priority = ?2 AND next_try_ms <= ?3"
		" ORDER BY next_try_ms, id",
	[SQL_DUE_AFTER] = "SELECT DISTINCT id >> 16 FROM recipient WHERE id >= (?2 + 1) << 16 AND state = 0 AND route = ?1"
		" AND next_try_ms <= ?3 ORDER BY 1",
	[SQL_NEWEST] = "SELECT coalesce(max(id), 0) FROM message",
	[SQL_DUE_MESSAGE] = "SELECT m.size, m.submitted_ms, m.priority, m.tries,"
		" coalesce((SELECT max(durable) FROM txn WHERE " ATTEMPTS_OF("m.id") "), 0),"
		" (SELECT count(*) FROM attempt WHERE " ATTEMPTS_OF("m.id") " AND phase >= 9 AND counts AND started_ms > ?2),"
		" coalesce((SELECT max(started_ms) FROM attempt WHERE " ATTEMPTS_OF("m.id") " AND phase >= 9 AND counts), 0),"
		" EXISTS (SELECT 1 FROM recipient WHERE " OF_MESSAGE("m.id") " AND state = 0 AND waits = 2),"
		" (SELECT count(*) FROM recipient WHERE " OF_MESSAGE("m.id") " AND state = 0 AND next_try_ms <= ?3),"
		/* cut, stalled; on the network of the last try */
		" (SELECT count(*) FROM attempt WHERE " ATTEMPTS_OF("m.id") " AND phase >= 9 AND counts AND outcome IN (5, 15) AND started_ms > ?2"
		"  AND network = (SELECT network FROM attempt WHERE " ATTEMPTS_OF("m.id") " ORDER BY id DESC LIMIT 1)) FROM message m WHERE m.id = ?1",
	[SQL_NEXT_DUE] = "SELECT min(next_try_ms) FROM recipient WHERE state = 0 AND route = ?1 AND priority = ?2 AND next_try_ms >= ?3",
	/* in doubt with something to resume: the server itself can be asked */
	[SQL_NEXT_DOUBT] = "SELECT min(next_try_ms) FROM recipient WHERE state = 3 AND state < 5 AND route = ?1 AND txn > 0 AND next_try_ms >= ?2",
	[SQL_DUE_DOUBT] = "SELECT id >> 16 FROM recipient WHERE state = 3 AND state < 5 AND route = ?1 AND txn > 0 AND next_try_ms <= ?2"
		" ORDER BY next_try_ms, id LIMIT 1",
	[SQL_NEXT_EXPIRY] = "SELECT min(expires_ms) FROM recipient WHERE state = 0 AND state < 5 AND route = ?",
	[SQL_EXPIRED] = "SELECT id, notify FROM recipient WHERE state = 0 AND state < 5 AND route = ?1 AND expires_ms <= ?2 ORDER BY id",
	[SQL_WAIT] = "UPDATE recipient SET next_try_ms = ?2, waits = ?3 WHERE " OF_MESSAGE("?1")
		" AND state = 0 AND next_try_ms <= ?4 AND waits <> 2",
	[SQL_WAIT_OVER] = "UPDATE recipient SET next_try_ms = min(next_try_ms, ?3), waits = 0 WHERE state = 0 AND route = ?1 AND waits = ?2",
	[SQL_REROUTABLE] = "SELECT m.id, m.submitted_ms FROM message m WHERE m.id IN (SELECT id >> 16 FROM recipient WHERE state = 0 AND route = ?1"
		" AND (next_try_ms <= ?2 OR waits <> 0)) AND NOT EXISTS (SELECT 1 FROM recipient p LEFT JOIN txn t ON t.id = p.txn WHERE p." OF_MESSAGE("m.id")
		" AND (p.state BETWEEN 1 AND 4 OR (p.state = 0 AND t.durable > 0))) AND m.submitted_ms <= ?3 ORDER BY m.id LIMIT ?4",
	[SQL_REROUTE_MESSAGE] = "UPDATE message SET route = ?2 WHERE id = ?1",
	[SQL_REROUTE_RECIPIENTS] = "UPDATE recipient SET route = ?2, txn = 0, next_try_ms = CASE WHEN waits = 0 THEN next_try_ms ELSE min(next_try_ms, ?3) END,"
		" waits = 0 WHERE " OF_MESSAGE("?1"),
	[SQL_ROUTE_OPEN] = "SELECT count(*) FROM (SELECT 1 FROM recipient WHERE state = ?2 AND state < 5 AND route = ?1 LIMIT ?3)",

	/* By the key: everything before it was looked at and is gone or told. */
	[SQL_FIRST_WAITING] = "SELECT m.id, m.submitted_ms FROM recipient p NOT INDEXED JOIN message m ON m.id = p.id >> 16"
		" WHERE p.id >= (?2 + 1) << 16 AND p.state IN (0, 1) AND p.route = ?1 ORDER BY p.id LIMIT 1",

	/* attempts */
	[SQL_CLAIM_TXN] = "SELECT p.txn, t.epoch FROM recipient p JOIN txn t ON t.id = p.txn WHERE p." OF_MESSAGE("?1")
		" AND p.state = 0 AND (p.next_try_ms <= ?2 OR ?3) LIMIT 1",
	[SQL_CLAIM_TXN_WHOLE] = "SELECT count(*), coalesce(sum(state = 0 AND (next_try_ms <= ?3 OR ?4)), 0) FROM recipient"
		" WHERE " OF_MESSAGE("?1") " AND txn = ?2",
	[SQL_CLAIM_DOUBT] = "SELECT p.txn, t.epoch FROM recipient p JOIN txn t ON t.id = p.txn WHERE p." OF_MESSAGE("?1")
		" AND p.state = 3 ORDER BY p.id LIMIT 1",
	[SQL_CLAIM_DOUBT_GROUP] = "SELECT id, address, orcpt, notify, epoch, state, by_hand FROM recipient WHERE " OF_MESSAGE("?1")
		" AND txn = ?2 ORDER BY id",
	[SQL_CLAIM_EPOCH] = "SELECT epoch FROM recipient WHERE " OF_MESSAGE("?1")
		" AND state = 0 AND (next_try_ms <= ?2 OR ?3) ORDER BY id LIMIT 1",
	[SQL_CLAIM] = "SELECT id, address, orcpt, notify, epoch, by_hand FROM recipient WHERE " OF_MESSAGE("?1")
		" AND state = 0 AND (next_try_ms <= ?2 OR ?3) AND epoch = ?4 AND (?5 = 0 OR txn = ?5) ORDER BY id LIMIT ?6",
	[SQL_CLAIM_MARK] = "UPDATE recipient SET attempt = ?2, accepted = 0, txn = ?3 WHERE id = ?1",
	[SQL_WORK] = "SELECT message_id, sender, envid, size, submitted_ms, sha256, ret, flags, route, stored FROM message WHERE id = ?",
	[SQL_TXN_GET] = "SELECT transid, ehlo_name, address, verb, durable, store, retained_until_ms, login FROM txn WHERE id = ?",
	[SQL_TXN_PUT] = "INSERT INTO txn (id, transid, epoch, address, verb, ehlo_name, store, retained_until_ms, durable, login)"
		" VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
		" ON CONFLICT (id) DO UPDATE SET transid = ?2, epoch = ?3, address = ?4, verb = ?5, ehlo_name = ?6, store = ?7,"
		" retained_until_ms = ?8, durable = ?9, login = ?10",
	[SQL_TXN_DURABLE] = "UPDATE txn SET durable = ?2 WHERE id = ?1",
	/* unless somebody still has it to resume */
	[SQL_TXN_DELETE] = "DELETE FROM txn WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM recipient"
		" WHERE id BETWEEN (?1 >> 20) << 16 AND ((?1 >> 20) << 16) + 65535 AND txn = ?1)",
	[SQL_TXN_FORGET] = "UPDATE recipient SET txn = 0 WHERE " OF_MESSAGE("?1") " AND txn = ?2",
	[SQL_ATTEMPT_NEXT] = "SELECT coalesce(max(id), ?1 << 20) + 1 FROM attempt WHERE " ATTEMPTS_OF("?1"),
	[SQL_ATTEMPT_ADD] = "INSERT INTO attempt (id, route, network, first, last, txn, started_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
	[SQL_ATTEMPT_GET] = "SELECT first, last, txn, phase, ended_ms, address FROM attempt WHERE id = ?",
	[SQL_ATTEMPT_MEMBERS] = "SELECT p.id, p.state, p.notify, p.accepted FROM attempt a JOIN recipient p"
		" ON p.id BETWEEN a.first AND a.last AND p.attempt = a.id AND p.state IN (1, 2, 3) WHERE a.id = ? ORDER BY p.id",
	[SQL_ATTEMPT_ENVELOPE] = "UPDATE attempt SET phase = max(phase, ?2), address = ?3, verb = ?4, txn = ?5 WHERE id = ?1",
	[SQL_ATTEMPT_PHASE] = "UPDATE attempt SET phase = max(phase, ?2) WHERE id = ?1",
	[SQL_ATTEMPT_PROGRESS] = "UPDATE attempt SET phase = max(phase, ?2), octets_sent = ?3, octets_acked = ?4, octets_durable = ?5"
		" WHERE id = ?1 AND ended_ms = 0",
	[SQL_ATTEMPT_CLOSE] = "UPDATE attempt SET ended_ms = ?2, phase = max(phase, ?3), outcome = ?4, counts = ?5,"
		" octets_sent = CASE WHEN ?6 < 0 THEN octets_sent ELSE ?6 END,"
		" octets_acked = CASE WHEN ?6 < 0 THEN octets_acked ELSE ?6 END,"
		" reply_code = ?7, reply_enhanced = ?8, reply_text = ?9 WHERE id = ?1",
	[SQL_ATTEMPT_TRIES] = "UPDATE message SET tries = tries + 1 WHERE id = ?1 >> 20"
		" AND EXISTS (SELECT 1 FROM attempt WHERE id = ?1 AND counts AND phase >= 9)",
	[SQL_ATTEMPT_COLLAPSE] = "DELETE FROM attempt WHERE id = (SELECT max(id) FROM attempt WHERE id BETWEEN ?2 << 20 AND ?1 - 1)"
		" AND counts = 0 AND ended_ms > 0 AND (SELECT counts = 0 FROM attempt WHERE id = ?1)",
	[SQL_ATTEMPT_THIN] = "DELETE FROM attempt WHERE " ATTEMPTS_OF("?1") " AND ended_ms > 0"
		" AND id > (SELECT min(id) FROM attempt WHERE " ATTEMPTS_OF("?1") ")"
		" AND id < (SELECT id FROM attempt WHERE " ATTEMPTS_OF("?1") " ORDER BY id DESC LIMIT 1 OFFSET 19)",
	[SQL_RECIPIENT_ACCEPTED] = "UPDATE recipient SET accepted = ?2, txn = ?3, reply_code = ?4, reply_enhanced = ?5, reply_text = ?6 WHERE id = ?1",
	[SQL_RECIPIENT_NO_TXN] = "UPDATE recipient SET txn = 0 WHERE id = ? AND txn <> 0",
	[SQL_MESSAGE_HASH] = "SELECT sha256 FROM message WHERE id = ?",
	[SQL_MESSAGE_SET_HASH] = "UPDATE message SET sha256 = ?2 WHERE id = ?1",

	/* doubt and people */
	[SQL_DOUBTS] = "SELECT m.id, m.message_id, m.size, m.submitted_ms, m.expires_ms, m.auto_submitted, m.source, max(p.state_ms),"
		" min(p.reported_ms), d.since_ms, d.usable_ms, d.asked, d.next_ask_ms, d.negatives, d.told_ms, d.source, d.answer, d.quote, count(*), m.duplicates, max(p.txn) > 0"
		" FROM recipient p JOIN message m ON m.id = p.id >> 16 LEFT JOIN doubt d ON d.message = m.id"
		" WHERE p.state = 3 AND p.state < 5 AND p.route = ?1 AND (?2 = 0 OR m.id = ?2) GROUP BY m.id",
	[SQL_DOUBT_PUT] = "INSERT OR REPLACE INTO doubt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_DOUBT_DELETE] = "DELETE FROM doubt WHERE message = ?",
	[SQL_MESSAGE_RECIPIENTS] = "SELECT id, address, state, notify FROM recipient WHERE " OF_MESSAGE("?1") " ORDER BY id",
	[SQL_RECIPIENT_EPOCH] = "SELECT epoch FROM recipient WHERE id = ?",
	[SQL_RECIPIENT_DUE] = "UPDATE recipient SET next_try_ms = min(next_try_ms, ?2), waits = 2 WHERE id = ?1 AND state IN (0, 3)",
	[SQL_DOUBT_NEXT] = "UPDATE recipient SET next_try_ms = ?2 WHERE id = ?1 AND state = 3",
	[SQL_RECIPIENT_EXTEND] = "UPDATE recipient SET expires_ms = ?2 +"
		" (SELECT max(m.expires_ms - m.submitted_ms, 0) FROM message m WHERE m.id = recipient.id >> 16) WHERE id = ?1 AND expires_ms <= ?2",
	[SQL_MESSAGE_EXTEND] = "UPDATE message SET expires_ms = (SELECT max(expires_ms) FROM recipient WHERE " OF_MESSAGE("?1") ")"
		" WHERE id = ?1 AND expires_ms < (SELECT max(expires_ms) FROM recipient WHERE " OF_MESSAGE("?1") ")",
	[SQL_RECIPIENT_RESEND] = "UPDATE recipient SET epoch = epoch + 1, txn = 0, accepted = 0, unknown_copies = unknown_copies + ?2, by_hand = ?3 WHERE id = ?1",
	[SQL_RECIPIENT_COPY] = "UPDATE recipient SET unknown_copies = max(unknown_copies + ?2, 0) WHERE id = ?1",
	[SQL_PROOF_RECIPIENTS] = "SELECT id, address, state, notify, epoch, attempt, unknown_copies FROM recipient WHERE " OF_MESSAGE("?1") " ORDER BY id",
	[SQL_BY_ENVID] = "SELECT id FROM message WHERE envid <> '' AND envid IN (?1, ?2) AND id > ?3 ORDER BY id LIMIT 1",
	[SQL_BY_MESSAGE_ID] = "SELECT id FROM message WHERE mid_hash = ?1 AND message_id = ?2 AND id > ?3 ORDER BY id LIMIT 1",

	[SQL_RETRY_ALL] = "UPDATE recipient SET next_try_ms = min(next_try_ms, ?1), waits = 2 WHERE state IN (0, 3) AND state < 5"
		/* Whoever said "not before" did not mean "unless somebody flushes". */
		" AND NOT EXISTS (SELECT 1 FROM message m WHERE m.id = recipient.id >> 16 AND m.not_before_ms > ?1)",

	/* what people change */
	[SQL_EDIT_AT] = "UPDATE recipient SET next_try_ms = ?2, waits = 0, expires_ms = max(expires_ms, ?2 +"
		" (SELECT m.expires_ms - m.submitted_ms FROM message m WHERE m.id = recipient.id >> 16)) WHERE id = ?1 AND state = 0",
	[SQL_EDIT_DEADLINE] = "UPDATE recipient SET expires_ms = ?2 WHERE id = ?1",
	[SQL_EDIT_ADDRESS] = "UPDATE recipient SET address = ?2, orcpt = '', epoch = 0, by_hand = 0, unknown_copies = 0, reply_code = 0, reply_enhanced = '', reply_text = '' WHERE id = ?1",
	[SQL_EDIT_FLAGS] = "UPDATE message SET flags = flags | ?2 WHERE id = ?1",
	[SQL_EDIT_MESSAGE_AT] = "UPDATE message SET not_before_ms = ?2 WHERE id = ?1",
	[SQL_EDIT_MESSAGE_EXPIRY] = "UPDATE message SET expires_ms = (SELECT max(expires_ms) FROM recipient WHERE " OF_MESSAGE("?1") ") WHERE id = ?1 AND ?2 = 0",
	[SQL_EDIT_SEEN] = "SELECT EXISTS (SELECT 1 FROM attempt WHERE " ATTEMPTS_OF("?1") " AND phase >= 8)",

	/* reports */
	[SQL_REPORT_NEXT] = "SELECT id >> 16 FROM recipient WHERE state IN (3, 6, 7) AND reported_ms = 0 LIMIT 1",
	[SQL_REPORT_MARK] = "UPDATE recipient SET reported_ms = ?2 WHERE id = ?1 AND state IN (3, 6, 7)",
	/* A clock that went back forgets when it was told. */
	[SQL_CUT_NOTE] = "UPDATE message SET cut_ms = ?2 WHERE id = ?1 AND cut_ms = 0 AND (cut_told_ms = 0 OR cut_told_ms > ?2 OR cut_told_ms + ?3 <= ?2)",
	[SQL_CUT_NEXT] = "SELECT id, cut_ms FROM message WHERE cut_ms > 0 LIMIT 1",
	[SQL_CUT_TOLD] = "UPDATE message SET cut_told_ms = cut_ms, cut_ms = 0 WHERE id = ? AND cut_ms > 0",

	/* ledger */
	[SQL_LEDGER_ADD] = "INSERT INTO ledger (message_id, mid_hash, recipient, sha256, accepted_ms, route, message, epoch, provider_id,"
		" source, reply_code, reply_enhanced, reply_text, unknown_copies, uid)"
		" SELECT m.message_id, m.mid_hash, p.address, m.sha256, ?2, m.route, m.id, CASE WHEN ?8 < 0 THEN p.epoch ELSE ?8 END, ?3, ?4, ?5, ?6, ?7,"
		" CASE WHEN ?8 < 0 OR p.state = 3 THEN p.unknown_copies ELSE 0 END, m.uid"
		" FROM recipient p JOIN message m ON m.id = p.id >> 16 WHERE p.id = ?1",
	[SQL_LEDGER_PROVIDER_ID] = "UPDATE ledger SET provider_id = ?3 WHERE mid_hash = ?1 AND message_id = ?2 AND provider_id = ''",
	[SQL_LEDGER_HAS] = "SELECT 1 FROM recipient p JOIN message m ON m.id = p.id >> 16 JOIN ledger l ON l.mid_hash = m.mid_hash"
		" AND l.message = m.id AND l.recipient = p.address WHERE p.id = ?1 AND l.epoch = ?2",
	[SQL_LEDGER_COPY] = "UPDATE ledger SET unknown_copies = max(unknown_copies - 1, 0) WHERE message = ?1 >> 16"
		" AND mid_hash = (SELECT mid_hash FROM message WHERE id = ?1 >> 16) AND recipient = (SELECT address FROM recipient WHERE id = ?1)",
	[SQL_FORGET] = "DELETE FROM ledger WHERE (?1 = 0 OR message = ?1) AND (?2 IS NULL OR recipient = ?2 COLLATE NOCASE)"
		" AND (?3 IS NULL OR message_id = ?3) AND (?4 = 0 OR accepted_ms <= ?4)",
	[SQL_FORGET_MESSAGE] = "SELECT id, stored, id = (SELECT max(id) FROM message),"
		" EXISTS (SELECT 1 FROM ledger l WHERE l.mid_hash = m.mid_hash AND l.message = m.id) FROM message m"
		" WHERE done_ms > 0 AND message_id <> '' AND (?1 = 0 OR id = ?1) AND (?3 IS NULL OR message_id = ?3) AND (?4 = 0 OR done_ms <= ?4)"
		" AND (?2 IS NULL OR NOT EXISTS (SELECT 1 FROM recipient p WHERE p." OF_MESSAGE("m.id") " AND p.address <> ?2 COLLATE NOCASE))"
		" AND id > ?5 ORDER BY id LIMIT 1",
	[SQL_FORGET_LAST] = "UPDATE message SET message_id = '', mid_hash = 0, sender = '', header_from = '', subject = '', envid = '', sha256 = NULL WHERE id = ?",
	[SQL_LEDGER_NEXT] = "SELECT " LEDGER_COLUMNS " FROM ledger l JOIN route r ON r.id = l.route WHERE l.id > ?1 AND l.accepted_ms >= ?2"
		" AND (?3 IS NULL OR l.recipient = ?3 COLLATE NOCASE) AND (?4 < 0 OR l.uid = ?4) ORDER BY l.id LIMIT 1",
	[SQL_LEDGER_NEXT_MID] = "SELECT " LEDGER_COLUMNS " FROM ledger l JOIN route r ON r.id = l.route WHERE l.id > ?1 AND l.accepted_ms >= ?2"
		" AND (?3 IS NULL OR l.recipient = ?3 COLLATE NOCASE) AND (?4 < 0 OR l.uid = ?4) AND l.mid_hash = ?5 AND l.message_id = ?6"
		" ORDER BY l.id LIMIT 1",

	/* links and what was learned */
	[SQL_LINK_GET] = "SELECT " LINK_COLUMNS " FROM " LINK_TABLES " WHERE r.name = ?1 AND l.network = ?2",
	[SQL_LINK_EACH] = "SELECT " LINK_COLUMNS " FROM " LINK_TABLES " ORDER BY l.route, l.written",
	[SQL_LINK_PUT] = "INSERT OR REPLACE INTO link VALUES (?1, ?2, (SELECT coalesce(max(written), 0) + 1 FROM link WHERE route = ?1),"
		" ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23)",
	[SQL_QUALITY_PUT] = "INSERT OR REPLACE INTO quality VALUES (?, ?, ?" SQ_QUALITY_LIST(VALUE) ")",
	[SQL_LINK_PAST_PUT] = "INSERT OR REPLACE INTO link_past VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
	[SQL_LINK_PAST] = "SELECT r.name, p.network, p.at_ms, p.ms, p.octets, p.rtt_us, p.retransmits, p.cuts FROM link_past p"
		" JOIN route r ON r.id = p.route WHERE p.at_ms >= ?1 AND (?2 IS NULL OR r.name = ?2) ORDER BY p.at_ms",
	[SQL_LINK_PAST_OLDEST] = "SELECT 1 FROM link_past WHERE at_ms < ? LIMIT 1",
	/* The first of a span stays. */
	[SQL_LINK_PAST_THIN] = "DELETE FROM link_past WHERE at_ms < ?1 OR (at_ms < ?2 AND EXISTS (SELECT 1 FROM link_past o"
		" WHERE o.route = link_past.route AND o.network = link_past.network AND o.at_ms < link_past.at_ms"
		" AND o.at_ms >= link_past.at_ms - link_past.at_ms % CASE WHEN link_past.at_ms < ?3 THEN 3600000 ELSE 600000 END))",
	[SQL_NETWORK_PUT] = "INSERT OR REPLACE INTO network (seq, id, interface, since_ms, portal_ms)"
		" VALUES ((SELECT coalesce(max(seq), 0) + 1 FROM network), ?, ?, ?, ?)",
	[SQL_NETWORK_GET] = "SELECT id, interface, since_ms, portal_ms FROM network ORDER BY seq DESC LIMIT 1",
	[SQL_LEARN] = "INSERT OR REPLACE INTO learned VALUES (?, ?, ?, ?)",
	[SQL_UNLEARN] = "DELETE FROM learned WHERE route = ? AND key = ?",
	[SQL_LEARNED] = "SELECT l.value FROM learned l JOIN route r ON r.id = l.route WHERE r.name = ? AND l.key = ?",

	/* requests */
	[SQL_REQUEST_ADD] = "INSERT INTO request (kind, message, address, asked_ms, number, code, enhanced, words, detail)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
	[SQL_REQUEST_GET] = "SELECT " REQUEST_COLUMNS " FROM request WHERE id = ?",
	[SQL_REQUEST_NEXT] = "SELECT " REQUEST_COLUMNS " FROM request WHERE done_ms = 0 AND id > ? ORDER BY id LIMIT 1",
	[SQL_REQUEST_DONE] = "UPDATE request SET done_ms = ?2, ok = ?3, result = ?4,"
		" address = CASE WHEN kind = 10 THEN '' ELSE address END, words = CASE WHEN kind = 10 THEN '' ELSE words END" /* what is forgotten is not kept here */
		" WHERE id = ?1 AND done_ms = 0",

	/* reading */
	[SQL_FIND] = "SELECT id FROM message WHERE id BETWEEN ?1 AND ?2 AND (?3 < 0 OR uid = ?3) ORDER BY id LIMIT 4",
	[SQL_MESSAGE] = "SELECT " MESSAGE_COLUMNS " FROM message m JOIN route r ON r.id = m.route WHERE m.id = ?",
	[SQL_ROUTE_WAIT] = "SELECT coalesce((SELECT next_try_ms FROM link WHERE route = m.route ORDER BY written DESC LIMIT 1), 0)"
		" FROM message m WHERE m.id = ?",
	[SQL_RECIPIENTS] = "SELECT p.id, p.address, p.state, p.notify, p.epoch, p.next_try_ms, p.state_ms, p.reply_code, p.reply_enhanced,"
		" p.reply_text, p.reported_ms, coalesce(t.durable, CASE WHEN a.ended_ms = 0 THEN a.octets_durable END, 0), coalesce(a.octets_acked, 0), p.waits, p.unknown_copies, p.orcpt,"
		" t.id IS NOT NULL"
		" FROM recipient p LEFT JOIN attempt a ON a.id = p.attempt LEFT JOIN txn t ON t.id = p.txn"
		" WHERE p." OF_MESSAGE("?1") " ORDER BY p.id",
	[SQL_ATTEMPTS] = "SELECT a.id, r.name, a.started_ms, a.ended_ms, a.phase, a.octets_sent, a.octets_acked, a.octets_durable, a.outcome,"
		" a.reply_code, a.reply_enhanced, a.reply_text FROM attempt a JOIN route r ON r.id = a.route"
		" WHERE a." ATTEMPTS_OF("?1") " ORDER BY a.id",
	[SQL_LIST_OPEN] = "SELECT DISTINCT id >> 16 FROM recipient WHERE state IN (0, 1, 2, 3, 4) AND state < 5 ORDER BY 1",
	[SQL_LIST_ALL] = "SELECT id FROM message ORDER BY id",
	[SQL_LIST_MOVING] = "SELECT DISTINCT id >> 16 FROM recipient WHERE state IN (1, 2) AND state < 5 ORDER BY 1",
	[SQL_LIST_SOONEST] = "SELECT id >> 16 FROM recipient WHERE state = 0 GROUP BY 1 ORDER BY min(next_try_ms), 1 LIMIT ?",
	[SQL_COUNTS] = "SELECT state, count(*) FROM recipient GROUP BY state",
	[SQL_COUNTS_UID] = "SELECT p.state, count(*) FROM message m JOIN recipient p ON p.id BETWEEN m.id << 16 AND (m.id << 16) + 65535"
		" WHERE m.uid = ? GROUP BY p.state",
	[SQL_MESSAGE_UID] = "SELECT uid FROM message WHERE id = ?",
	[SQL_COUNTS_OF] = "SELECT state, count(*) FROM recipient WHERE " OF_MESSAGE("?1") " GROUP BY state",

	/* housekeeping */
	[SQL_SWEEP_CONTENT] = "SELECT id FROM message WHERE stored = 1 AND done_ms > 0 ORDER BY done_ms LIMIT 1",
	[SQL_MESSAGE_UNSTORED] = "UPDATE message SET stored = 0 WHERE id = ?",
	[SQL_SWEEP_MESSAGE] = "SELECT id FROM message WHERE stored = 0 AND done_ms > 0 AND done_ms <= ?"
		" AND id < (SELECT max(id) FROM message) ORDER BY done_ms LIMIT 1",
	[SQL_DELETE_RECIPIENTS] = "DELETE FROM recipient WHERE " OF_MESSAGE("?1"),
	[SQL_DELETE_ATTEMPTS] = "DELETE FROM attempt WHERE " ATTEMPTS_OF("?1"),
	[SQL_DELETE_TXNS] = "DELETE FROM txn WHERE " ATTEMPTS_OF("?1"),
	[SQL_DELETE_MESSAGE] = "DELETE FROM message WHERE id = ?",
	[SQL_LEDGER_OLDEST] = "SELECT id FROM (SELECT id, accepted_ms FROM ledger ORDER BY id LIMIT 1) WHERE accepted_ms <= ?",
	[SQL_REQUEST_OLDEST] = "SELECT id FROM (SELECT id, done_ms FROM request ORDER BY id LIMIT 1) WHERE done_ms > 0 AND done_ms < ?",
	[SQL_SWEEP_LEDGER] = "DELETE FROM ledger WHERE id IN (SELECT id FROM"
		" (SELECT id, accepted_ms FROM ledger ORDER BY id LIMIT 256) WHERE accepted_ms <= ?)",
	[SQL_SWEEP_REQUESTS] = "DELETE FROM request WHERE id IN (SELECT id FROM"
		" (SELECT id, done_ms FROM request ORDER BY id LIMIT 256) WHERE done_ms > 0 AND done_ms < ?)",
};

const char *
sq_sql_text(enum sq_sql id)
{
	return texts[id];
}
