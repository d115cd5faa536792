extension SchemaMigrations {
    /// The columns of selection, leases, evaluation and asynchronous rounds.
    static let scheduling = """
        ALTER TABLE client ADD COLUMN capabilities TEXT NOT NULL DEFAULT '{}';
        ALTER TABLE client ADD COLUMN steps_per_second DOUBLE;
        ALTER TABLE client ADD COLUMN seconds_per_assignment DOUBLE;
        ALTER TABLE run ADD COLUMN started_at DOUBLE;
        ALTER TABLE round ADD COLUMN drawn INTEGER;
        ALTER TABLE round ADD COLUMN draw_key TEXT;
        ALTER TABLE round ADD COLUMN tier_counts TEXT;
        ALTER TABLE assignment ADD COLUMN lease_until DOUBLE;
        ALTER TABLE assignment ADD COLUMN progress DOUBLE;
        ALTER TABLE assignment ADD COLUMN ended_at DOUBLE;
        ALTER TABLE assignment ADD COLUMN tier INTEGER;
        ALTER TABLE assignment ADD COLUMN max_steps INTEGER;
        ALTER TABLE assignment ADD COLUMN counted_round INTEGER;
        ALTER TABLE assignment ADD COLUMN metrics TEXT;
        ALTER TABLE history ADD COLUMN assignment_id TEXT;
        """

    /// Sessions of a helper by the attempt that they are for, and each client's pseudonym at a domain.
    static let protectedRounds = """
        CREATE TABLE protected_session (
            run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            state TEXT NOT NULL, session TEXT NOT NULL UNIQUE, document TEXT NOT NULL, grant TEXT NOT NULL,
            excluded TEXT NOT NULL DEFAULT '[]', exclusion_count INTEGER NOT NULL DEFAULT 0,
            PRIMARY KEY (run_id, round, attempt));
        CREATE INDEX protected_session_open ON protected_session (state) WHERE state <> 'ended';
        CREATE TABLE pseudonym (
            client_id TEXT NOT NULL REFERENCES client (id), domain TEXT NOT NULL, pseudonym TEXT NOT NULL,
            PRIMARY KEY (client_id, domain), UNIQUE (domain, pseudonym)) WITHOUT ROWID;
        """

    /// Several turns of a client in one attempt.
    ///
    /// SQLite cannot change a constraint, so the table is created again.
    static let turns = """
        CREATE TABLE assignment_next (
            id TEXT PRIMARY KEY NOT NULL, run_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            client_id TEXT NOT NULL REFERENCES client (id), state TEXT NOT NULL, code TEXT, created_at DOUBLE NOT NULL,
            deadline DOUBLE NOT NULL, update_sha256 TEXT, update_bytes INTEGER, example_count INTEGER,
            lease_until DOUBLE, progress DOUBLE, ended_at DOUBLE, tier INTEGER, max_steps INTEGER, counted_round INTEGER,
            metrics TEXT, turn INTEGER NOT NULL DEFAULT 1,
            UNIQUE (run_id, round, attempt, client_id, turn),
            FOREIGN KEY (run_id, round, attempt) REFERENCES round (run_id, number, attempt));
        INSERT INTO assignment_next (
                id, run_id, round, attempt, client_id, state, code, created_at, deadline, update_sha256, update_bytes,
                example_count, lease_until, progress, ended_at, tier, max_steps, counted_round, metrics)
            SELECT id, run_id, round, attempt, client_id, state, code, created_at, deadline, update_sha256, update_bytes,
                example_count, lease_until, progress, ended_at, tier, max_steps, counted_round, metrics
            FROM assignment ORDER BY rowid;
        DROP TABLE assignment;
        ALTER TABLE assignment_next RENAME TO assignment;
        """

    /// Which attempt took a buffered update, for earlier ones by the time; and what clients with local privacy have begun to send:
    /// nobody knows it of those who are at work now.
    static let attemptsAndReleases = """
        ALTER TABLE assignment ADD COLUMN counted_attempt INTEGER;
        ALTER TABLE assignment ADD COLUMN release_sha256 TEXT;
        UPDATE assignment SET counted_attempt = coalesce(
                (SELECT max(r.attempt) FROM round r WHERE r.run_id = assignment.run_id
                    AND r.number = assignment.counted_round AND r.opened_at <= assignment.ended_at), 1)
            WHERE counted_round IS NOT NULL;
        UPDATE assignment SET release_sha256 = '?' WHERE state <> 'accepted' AND EXISTS (
            SELECT 1 FROM round r WHERE r.run_id = assignment.run_id AND r.number = assignment.round
                AND r.attempt = assignment.attempt AND r.has_received AND r.phase NOT IN ('committed', 'abandoned'));
        """
}
