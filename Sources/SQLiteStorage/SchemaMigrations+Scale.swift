extension SchemaMigrations {
    /// Counts and indexes that a start and the lists read instead of all assignments and all history.
    ///
    /// A trigger counts assignments in `participation`; further turns in an attempt are the same participation. The partial indexes hold
    /// the few rows that queries look for among many.
    static let countedAssignments = """
        CREATE TABLE participation (
            client_id TEXT NOT NULL, run_id TEXT NOT NULL, trainings INTEGER NOT NULL, last_round INTEGER NOT NULL,
            evaluations INTEGER NOT NULL, PRIMARY KEY (client_id, run_id)) WITHOUT ROWID;
        INSERT INTO participation (client_id, run_id, trainings, last_round, evaluations)
            SELECT client_id, run_id, sum(round > 0), max(max(round), 0), sum(round < 0) FROM assignment
            WHERE turn = 1 GROUP BY client_id, run_id;
        CREATE TRIGGER assignment_is_counted AFTER INSERT ON assignment WHEN NEW.turn = 1 BEGIN
            INSERT INTO participation (client_id, run_id, trainings, last_round, evaluations)
                VALUES (NEW.client_id, NEW.run_id, NEW.round > 0, max(NEW.round, 0), NEW.round < 0)
                ON CONFLICT (client_id, run_id) DO UPDATE SET trainings = trainings + excluded.trainings,
                    last_round = max(last_round, excluded.last_round), evaluations = evaluations + excluded.evaluations;
        END;
        CREATE INDEX assignment_refused ON assignment (run_id, round, code) WHERE state IN ('rejected', 'failed');
        CREATE INDEX assignment_live ON assignment (run_id)
            WHERE state IN ('assigned', 'downloading', 'training', 'uploading');
        CREATE INDEX assignment_counted ON assignment (run_id, counted_round) WHERE counted_round IS NOT NULL;
        CREATE INDEX history_of_rounds ON history (run_id, round) WHERE assignment_id IS NULL;
        CREATE INDEX history_told ON history (assignment_id) WHERE assignment_id IS NULL;
        CREATE INDEX history_of_phases ON history (run_id, round, attempt, state, at)
            WHERE round > 0 AND state IN ('reporting', 'aggregating');
        """
}
