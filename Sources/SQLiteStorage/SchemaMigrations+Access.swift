extension SchemaMigrations {
    /// Token roles and the audit log.
    ///
    /// SQLite cannot change a CHECK, so the table is created again and its rows get ids.
    static let accessControl = """
        ALTER TABLE token RENAME TO token_before;
        CREATE TABLE token (
            hash TEXT PRIMARY KEY NOT NULL, id TEXT NOT NULL,
            role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'enrollment', 'client')),
            name TEXT, created_by TEXT, population_id TEXT REFERENCES population (id), client_id TEXT,
            uses_left INTEGER, expires_at DOUBLE, created_at DOUBLE NOT NULL);
        INSERT INTO token (hash, id, role, population_id, client_id, uses_left, expires_at, created_at)
            SELECT hash, 'tok_' || lower(hex(randomblob(10))), role, population_id, client_id, uses_left, expires_at,
                created_at FROM token_before;
        DROP TABLE token_before;
        CREATE INDEX token_by_id ON token (id);
        CREATE TABLE audit (
            sequence INTEGER PRIMARY KEY AUTOINCREMENT, at DOUBLE NOT NULL, actor TEXT NOT NULL, actor_name TEXT,
            role TEXT NOT NULL, address TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
            outcome TEXT NOT NULL CHECK (outcome IN ('done', 'refused')), code TEXT, request_id TEXT NOT NULL);
        CREATE INDEX audit_by_actor ON audit (actor, sequence);
        CREATE TRIGGER audit_is_append_only_update BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
        CREATE TRIGGER audit_is_append_only_delete BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
        """
}
