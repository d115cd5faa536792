import GRDB

/// The schema, as a list of migrations.
///
/// A migration that has been released is never changed.
enum SchemaMigrations {
    static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1: first light") { database in
            try database.execute(sql: firstLight)
        }
        migrator.registerMigration("model metrics") { database in
            try database.execute(sql: modelMetrics)
        }
        migrator.registerMigration("access: token roles and audit log") { database in
            try database.execute(sql: accessControl)
        }
        migrator.registerMigration("events") { database in
            try database.execute(
                sql: """
                    CREATE TABLE event (
                        id INTEGER PRIMARY KEY NOT NULL, at DOUBLE NOT NULL, type TEXT NOT NULL, run_id TEXT,
                        population_id TEXT, data TEXT NOT NULL);
                    """
            )
        }
        migrator.registerMigration("rounds: selection, leases, evaluation") { database in
            try database.execute(sql: scheduling)
        }
        migrator.registerMigration("access: clients bound to certificates") { database in
            try database.execute(sql: "ALTER TABLE client ADD COLUMN certificate_key TEXT")
        }
        migrator.registerMigration("optimizer state and control variates of model versions") { database in
            try database.execute(
                sql: """
                    ALTER TABLE model_version ADD COLUMN optimizer_sha256 TEXT;
                    ALTER TABLE model_version ADD COLUMN control_sha256 TEXT;
                    """
            )
        }
        migrator.registerMigration("scores of updates and quarantine of clients") { database in
            try database.execute(sql: updateScores)
        }
        migrator.registerMigration("privacy ledger: rows about a population") { database in
            try database.execute(sql: ledgerOfPopulations)
        }
        migrator.registerMigration("rounds: bytes down") { database in
            try database.execute(sql: "ALTER TABLE round ADD COLUMN bytes_down INTEGER")
        }
        migrator.registerMigration("model versions: clipping norm") { database in
            try database.execute(sql: "ALTER TABLE model_version ADD COLUMN clipping_norm DOUBLE")
        }
        migrator.registerMigration("assignments: turns in an attempt") { database in
            try database.execute(sql: turns)
        }
        migrator.registerMigration("scale: participations counted, indexes of what is looked for") { database in
            try database.execute(sql: countedAssignments)
        }
        migrator.registerMigration("rounds: clients that were held to a bound") { database in
            try database.execute(
                sql: """
                    ALTER TABLE round ADD COLUMN capped_weights INTEGER;
                    ALTER TABLE round ADD COLUMN weight_cap INTEGER;
                    ALTER TABLE round ADD COLUMN capped_norms INTEGER;
                    ALTER TABLE round ADD COLUMN norm_bound DOUBLE;
                    """
            )
        }
        migrator.registerMigration("privacy ledger: numbers and hashes of populations") { database in
            try database.execute(
                sql: """
                    ALTER TABLE privacy_charge ADD COLUMN format INTEGER NOT NULL DEFAULT 1;
                    ALTER TABLE privacy_charge ADD COLUMN population_number INTEGER;
                    ALTER TABLE privacy_charge ADD COLUMN population_previous_hash TEXT;
                    """
            )
        }
        migrator.registerMigration("clients: generation of their state") { database in
            try database.execute(
                sql: """
                    ALTER TABLE client ADD COLUMN state_generation INTEGER;
                    ALTER TABLE client ADD COLUMN state_generation_said INTEGER;
                    """
            )
        }
        migrator.registerMigration("store: number of the last transaction") { database in
            try database.execute(
                sql: """
                    CREATE TABLE store_mark (id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1), value INTEGER NOT NULL);
                    INSERT INTO store_mark (id, value) VALUES (1, 0);
                    """
            )
        }
        migrator.registerMigration(privacyMigration) { database in
            try database.execute(sql: forgettingWhatWasNotNoised)
        }
        migrator.registerMigration("assignments: the attempt that took the update, and what was begun to be sent") {
            database in
            try database.execute(sql: attemptsAndReleases)
        }
        migrator.registerMigration("protected rounds: sessions of a helper, pseudonyms of devices") { database in
            try database.execute(sql: protectedRounds)
        }
        return migrator
    }

    private static let updateScores = """
        CREATE TABLE update_score (
            run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            assignment_id TEXT NOT NULL, client_id TEXT NOT NULL REFERENCES client (id), example_count INTEGER NOT NULL,
            norm DOUBLE NOT NULL, norm_ratio DOUBLE NOT NULL, cosine DOUBLE, counted BOOLEAN NOT NULL, reason TEXT,
            PRIMARY KEY (run_id, round, attempt, assignment_id));
        CREATE INDEX update_score_by_client ON update_score (client_id);
        ALTER TABLE round ADD COLUMN excluded INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE client ADD COLUMN quarantine_reason TEXT;
        ALTER TABLE client ADD COLUMN quarantined_at DOUBLE;
        """

    private static let firstLight = """
        CREATE TABLE population (
            id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL UNIQUE,
            budget_epsilon DOUBLE, budget_delta DOUBLE, created_at DOUBLE NOT NULL);
        CREATE TABLE token (
            hash TEXT PRIMARY KEY NOT NULL, role TEXT NOT NULL CHECK (role IN ('admin', 'enrollment', 'client')),
            population_id TEXT REFERENCES population (id), client_id TEXT, uses_left INTEGER,
            expires_at DOUBLE, created_at DOUBLE NOT NULL);
        CREATE TABLE client (
            id TEXT PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id), name TEXT,
            labels TEXT NOT NULL, state TEXT NOT NULL, registration_key TEXT UNIQUE, registered_at DOUBLE NOT NULL);
        CREATE TABLE run (
            id TEXT PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id), name TEXT NOT NULL,
            specification TEXT NOT NULL, state TEXT NOT NULL, reason TEXT, created_at DOUBLE NOT NULL);
        CREATE TABLE round (
            run_id TEXT NOT NULL REFERENCES run (id), number INTEGER NOT NULL, attempt INTEGER NOT NULL,
            phase TEXT NOT NULL, reason TEXT, opened_at DOUBLE NOT NULL, deadline DOUBLE NOT NULL, closed_at DOUBLE,
            assigned INTEGER NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL, failed INTEGER NOT NULL,
            expired INTEGER NOT NULL, bytes_up INTEGER NOT NULL, example_count INTEGER NOT NULL, model_sha256 TEXT,
            epsilon DOUBLE, PRIMARY KEY (run_id, number, attempt));
        CREATE TABLE assignment (
            id TEXT PRIMARY KEY NOT NULL, run_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            client_id TEXT NOT NULL REFERENCES client (id), state TEXT NOT NULL, code TEXT, created_at DOUBLE NOT NULL,
            deadline DOUBLE NOT NULL, update_sha256 TEXT, update_bytes INTEGER, example_count INTEGER,
            UNIQUE (run_id, round, attempt, client_id),
            FOREIGN KEY (run_id, round, attempt) REFERENCES round (run_id, number, attempt));
        CREATE TABLE model_version (
            run_id TEXT NOT NULL REFERENCES run (id), version INTEGER NOT NULL, sha256 TEXT NOT NULL,
            bytes INTEGER NOT NULL, created_at DOUBLE NOT NULL, PRIMARY KEY (run_id, version));
        CREATE TABLE privacy_charge (
            sequence INTEGER PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id),
            run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'released')), event TEXT NOT NULL,
            epsilon_after DOUBLE NOT NULL, created_at DOUBLE NOT NULL, previous_hash TEXT NOT NULL,
            row_hash TEXT NOT NULL UNIQUE);
        CREATE TRIGGER privacy_charge_is_append_only_update BEFORE UPDATE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        CREATE TRIGGER privacy_charge_is_append_only_delete BEFORE DELETE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        CREATE TABLE history (
            run_id TEXT NOT NULL REFERENCES run (id), round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            at DOUBLE NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL);
        CREATE INDEX history_by_round ON history (run_id, round);
        """

    private static let modelMetrics = """
        CREATE TABLE model_metrics (
            run_id TEXT NOT NULL, version INTEGER NOT NULL, source TEXT NOT NULL, metrics TEXT NOT NULL,
            measured_at DOUBLE NOT NULL, PRIMARY KEY (run_id, version, source),
            FOREIGN KEY (run_id, version) REFERENCES model_version (run_id, version));
        """

    /// Drops the reference to a run, because rows about a population itself have no run.
    private static let ledgerOfPopulations = """
        CREATE TABLE privacy_charge_next (
            sequence INTEGER PRIMARY KEY NOT NULL, population_id TEXT NOT NULL REFERENCES population (id),
            run_id TEXT NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'committed', 'released')), event TEXT NOT NULL,
            epsilon_after DOUBLE NOT NULL, created_at DOUBLE NOT NULL, previous_hash TEXT NOT NULL,
            row_hash TEXT NOT NULL UNIQUE);
        INSERT INTO privacy_charge_next SELECT * FROM privacy_charge ORDER BY sequence;
        DROP TABLE privacy_charge;
        ALTER TABLE privacy_charge_next RENAME TO privacy_charge;
        CREATE TRIGGER privacy_charge_is_append_only_update BEFORE UPDATE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        CREATE TRIGGER privacy_charge_is_append_only_delete BEFORE DELETE ON privacy_charge
            BEGIN SELECT RAISE(ABORT, 'the privacy ledger is append-only'); END;
        """
}
