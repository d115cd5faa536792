import Coordination
import Foundation
import GRDB

extension SchemaMigrations {
    /// The migration after which no row of a private run tells anything about an update that was not noised.
    static let privacyMigration = "privacy: nothing of an update that was not noised"

    private static let privateRuns =
        "(SELECT id FROM run WHERE coalesce(json_extract(specification, '$.privacy.mode'), 'none') <> 'none')"

    /// Clears hash, size and example count of un-noised updates, which earlier versions kept for ever.
    static let forgettingWhatWasNotNoised = """
        ALTER TABLE round ADD COLUMN has_received BOOLEAN NOT NULL DEFAULT 0;
        UPDATE assignment SET update_sha256 = NULL, update_bytes = NULL, example_count = NULL, progress = NULL,
            metrics = NULL WHERE run_id IN \(privateRuns);
        UPDATE assignment SET code = 'training_failed' WHERE state = 'failed' AND run_id IN \(privateRuns)
            AND code NOT IN ('privacy_refused', 'not_eligible', 'cancelled');
        UPDATE history SET cause = 'the client reported a failure' WHERE assignment_id IS NOT NULL AND state = 'failed'
            AND run_id IN \(privateRuns);
        UPDATE round SET bytes_up = 0, example_count = 0 WHERE run_id IN \(privateRuns);
        UPDATE event SET data = json_set(data, '$.bytes_up', 0, '$.refusals', json('{}')) WHERE type = 'round' AND run_id IN \(privateRuns);
        UPDATE client SET steps_per_second = NULL, seconds_per_assignment = NULL
            WHERE population_id IN (SELECT id FROM population WHERE budget_epsilon IS NOT NULL);
        """

    /// Copies what open private rounds still need of those columns to files beside the updates, before the columns are cleared.
    static func writeReceipts(_ database: Database, spool: String) throws {
        let rows = try Row.fetchAll(
            database,
            sql: """
                SELECT assignment.id, update_sha256, update_bytes, assignment.example_count FROM assignment
                JOIN round ON round.run_id = assignment.run_id AND round.number = assignment.round
                    AND round.attempt = assignment.attempt
                WHERE assignment.state = 'accepted' AND update_sha256 IS NOT NULL
                    AND round.phase NOT IN ('committed', 'abandoned') AND assignment.run_id IN \(privateRuns)
                """
        )
        for row in rows {
            let (id, sha256): (String, String) = (row[0], row[1])
            // A column that is cleared without its receipt would lose an update that the disk does not give now.
            guard try DurableFiles.exists("\(spool)/\(id).update") else { continue }
            let receipt = SpooledReceipt(sha256: sha256, byteCount: row[2] ?? 0, exampleCount: row[3] ?? 1)
            try receipt.write(to: "\(spool)/\(id)\(SpooledReceipt.suffix)")
        }
    }
}
