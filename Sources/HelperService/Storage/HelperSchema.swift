import GRDB

/// The schema, as a list of migrations.
///
/// A migration that has been released is never changed.
enum HelperSchema {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1: helper") { database in try database.execute(sql: first) }
        return migrator
    }

    private static let first = """
        CREATE TABLE store_mark (id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1), value INTEGER NOT NULL);
        INSERT INTO store_mark (id, value) VALUES (1, 0);
        CREATE TABLE helper (
            id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1), public_key TEXT, latest_time DOUBLE NOT NULL);
        INSERT INTO helper (id, public_key, latest_time) VALUES (1, NULL, 0);
        CREATE TABLE domain (
            name TEXT PRIMARY KEY NOT NULL, policy TEXT NOT NULL, budget_epsilon DOUBLE, budget_delta DOUBLE,
            created_at DOUBLE NOT NULL);
        CREATE TABLE token (
            hash TEXT PRIMARY KEY NOT NULL, id TEXT NOT NULL UNIQUE, role TEXT, domain TEXT REFERENCES domain (name),
            server TEXT, created_at DOUBLE NOT NULL, expires_at DOUBLE,
            CHECK ((role IS NULL) = (domain IS NOT NULL AND server IS NOT NULL)));
        CREATE TABLE session (
            id TEXT PRIMARY KEY NOT NULL, domain TEXT NOT NULL REFERENCES domain (name), server TEXT NOT NULL,
            purpose TEXT NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            key_file TEXT NOT NULL, state TEXT NOT NULL CHECK (state IN ('granted', 'summed', 'acknowledged', 'cancelled', 'expired')),
            document BLOB NOT NULL, grant_signature BLOB NOT NULL, request_hash TEXT NOT NULL, created_at DOUBLE NOT NULL,
            expires_at DOUBLE NOT NULL, charge TEXT, list_hash TEXT, sum_hash TEXT, sum_file TEXT, sum_bytes INTEGER,
            UNIQUE (domain, server, run, purpose, round, attempt));
        CREATE INDEX session_open ON session (state) WHERE state IN ('granted', 'summed');
        CREATE TABLE session_change (
            number INTEGER PRIMARY KEY NOT NULL, session TEXT NOT NULL, state TEXT NOT NULL, head TEXT NOT NULL);
        CREATE TRIGGER session_change_is_append_only_update BEFORE UPDATE ON session_change
            BEGIN SELECT RAISE(ABORT, 'the changes of sessions are append-only'); END;
        CREATE TRIGGER session_change_is_append_only_delete BEFORE DELETE ON session_change
            BEGIN SELECT RAISE(ABORT, 'the changes of sessions are append-only'); END;
        CREATE TABLE participation (
            domain TEXT NOT NULL REFERENCES domain (name), server TEXT NOT NULL, run TEXT NOT NULL, purpose TEXT NOT NULL,
            pseudonym BLOB NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (domain, server, run, purpose, pseudonym)) WITHOUT ROWID;
        CREATE TABLE lost_charge (
            domain TEXT NOT NULL, run TEXT NOT NULL, event TEXT NOT NULL, count INTEGER NOT NULL,
            PRIMARY KEY (domain, run, event)) WITHOUT ROWID;
        CREATE TABLE lost_budget (domain TEXT PRIMARY KEY NOT NULL, epsilon DOUBLE NOT NULL) WITHOUT ROWID;
        CREATE TABLE privacy_charge (
            sequence INTEGER PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES domain (name),
            run_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'released')), event TEXT NOT NULL,
            epsilon_after DOUBLE NOT NULL, created_at DOUBLE NOT NULL, previous_hash TEXT NOT NULL,
            row_hash TEXT NOT NULL UNIQUE, population_number INTEGER NOT NULL, population_previous_hash TEXT NOT NULL);
        CREATE TRIGGER privacy_charge_is_append_only_update BEFORE UPDATE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        CREATE TRIGGER privacy_charge_is_append_only_delete BEFORE DELETE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY NOT NULL, at DOUBLE NOT NULL, actor TEXT NOT NULL, actor_name TEXT,
            role TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL, outcome TEXT NOT NULL,
            code TEXT, request_id TEXT NOT NULL);
        """
}
