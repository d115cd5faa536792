import Coordination
import DifferentialPrivacy
import Foundation
package import Tensors
import WireFormat

/// Ledgers that somebody else wrote: documents for an auditor, second records, and rows of a database.
///
/// Whatever they say, there is an answer or a refusal, and no sum of what they say is more than a number holds.
package struct LedgerTarget: FuzzTarget {
    package static let name = "ledger"
    package static let testCaseCount = 400

    private let file: FuzzFile

    package init() throws { file = try FuzzFile() }

    package mutating func run(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        #if DEBUG
        let cellLimit = 1 << 9
        #else
        let cellLimit = 1 << 13
        #endif
        return try ComposedLoss.$cellLimit.withValue(cellLimit) { try judge(&generator) }
    }

    private func judge(_ generator: inout Xoshiro256StarStar) throws -> Bool {
        let isWild = !generator.oneIn(3)
        let rows = Self.rows(&generator, isWild: isWild)
        let ledger = try? PrivacyLedger(verifying: rows)
        var bytes = Self.document(rows, &generator, isWild: isWild)
        if generator.oneIn(4) {
            generator.damage(
                &bytes,
                with: ["9223372036854775807", "-1", "null", "1e300", "0"].map { Array($0.utf8) }
            )
        }
        if let audit = try? LedgerAudit(Data(bytes), delta: 1e-5, heads: [Self.head(&generator)]) {
            try expect(
                audit.committed >= 0 && audit.reserved >= 0 && audit.released >= 0,
                "counts under 0",
                bytes
            )
            for total in audit.epsilons {
                try expect(!(total.spent < 0) && !total.spent.isNaN, "epsilon is \(total.spent)", bytes)
            }
        }
        if let document = try? WireCoding.decode(LedgerAuditDocument.self, from: Data(bytes)) {
            _ = try? document.account().releases()
        }
        let record = Self.record(rows, &generator)
        try file.write(record)
        if let head = try? LedgerHead.read(path: file.path) {
            _ = head.contradiction(of: ledger ?? PrivacyLedger())
            _ = head.isBehind(ledger ?? PrivacyLedger())
        }
        return ledger != nil
    }

    // MARK: - Made-up ledgers

    private static let numbers = [
        Int.max, .max - 1, .min, -1, 0, 1, 2, 7, 64, 4097, 1 << 20, 1 << 32, 1 << 40, 1_000_000_000_000,
    ]

    private static func number(_ generator: inout Xoshiro256StarStar, _ usual: Int, isWild: Bool) -> Int {
        isWild && generator.oneIn(6) ? generator.pick(numbers) : usual
    }

    private static func event(_ generator: inout Xoshiro256StarStar, isWild: Bool) -> String {
        func number(_ usual: Int) -> Int { Self.number(&generator, usual, isWild: isWild) }
        let kind = generator.pick([
            "gaussian", "gaussian", "banded_matrix", "laplace", "discrete_gaussian", "poisson_gaussian", "approximate",
            "gaussian_sparse_histogram", "sample_and_threshold",
        ])
        let noise = isWild && generator.oneIn(8) ? generator.pick([0, -1, 1e-300, 1e300, 5e-5]) : 4.0
        var fields = [
            #""kind":"\#(kind)","mode":"central","relation":"zero_out","noiseMultiplier":\#(noise)"#,
            #""participationCap":\#(number(generator.nextIndex(below: 9)))"#,
            #""parameterCount":\#(number(100))"#,
        ]
        if kind == "banded_matrix" {
            fields.append(#""band":[1,0.5,0.375],"minSeparation":\#(number(3))"#)
        }
        if kind == "poisson_gaussian" || kind == "sample_and_threshold" { fields.append(#""samplingRate":0.001"#) }
        if kind == "sample_and_threshold" || kind == "gaussian_sparse_histogram" {
            fields.append(#""threshold":\#(number(30))"#)
        }
        if kind == "approximate" { fields.append(#""epsilon":0.1,"delta":1e-9"#) }
        if isWild && generator.oneIn(3) { fields.append(#""count":\#(number(1 + generator.nextIndex(below: 3)))"#) }
        return "{" + fields.joined(separator: ",") + "}"
    }

    /// Rows whose hashes fit, whatever they say.
    private static func rows(_ generator: inout Xoshiro256StarStar, isWild: Bool) -> [LedgerRow] {
        var rows: [LedgerRow] = []
        var head = LedgerChain.empty
        let note = #"{"kind":"budget","epsilon":8,"delta":1e-5,"accountant":"auto"}"#
        var first = PrivacyLedger()
        guard
            let template = try? first.append(
                population: "pop_1",
                run: "",
                round: 1,
                attempt: 0,
                state: .committed,
                event: note,
                epsilonAfter: 0,
                at: Date(timeIntervalSince1970: 0)
            )
        else { return [] }
        let count = 1 + generator.nextIndex(below: 6)
        // One event for most: rows of a plan are alike.
        let usual = event(&generator, isWild: isWild)
        for index in 0..<count {
            let isNote = index == 0 && generator.oneIn(2)
            let isLost = !isNote && generator.oneIn(4)
            let isFirst = isLost || index % 2 == 0
            let time = isWild && generator.oneIn(20) ? 1e300 : 1_700_000_000 + Double(index)
            var row = template
            row.sequence = index + 1
            row.runId = isNote ? "" : "run_1"
            row.round = isLost || isNote ? 0 : number(&generator, 1 + index / 2, isWild: isWild)
            row.attempt = isLost ? index : 1
            row.state = isLost || !isFirst ? generator.pick([.committed, .committed, .released]) : .reserved
            row.event =
                isNote ? note : generator.oneIn(5) ? event(&generator, isWild: isWild) : usual
            row.createdAt = Date(timeIntervalSince1970: time)
            row.previousHash = rows.last?.rowHash ?? PrivacyLedger.emptyHead
            row.populationNumber = index + 1
            row.populationPreviousHash = head
            row.rowHash = PrivacyLedger.hash(row)
            head = LedgerChain.head(
                after: head,
                number: index + 1,
                link: LedgerChain.link(
                    population: row.populationId,
                    number: index + 1,
                    run: row.runId,
                    round: row.round,
                    attempt: row.attempt,
                    state: row.state.rawValue,
                    event: row.event,
                    milliseconds: time < 1e200 ? Int((time * 1000).rounded()) : .min
                )
            )
            rows.append(row)
        }
        return rows
    }

    private static func quoted(_ text: String) -> String {
        "\"" + text.replacingOccurrences(of: "\"", with: "\\\"") + "\""
    }

    /// The document of the rows, or their lines, with some numbers changed.
    private static func document(
        _ rows: [LedgerRow],
        _ generator: inout Xoshiro256StarStar,
        isWild: Bool
    ) -> [UInt8] {
        func number(_ usual: Int) -> Int { Self.number(&generator, usual, isWild: isWild) }
        let isLines = generator.oneIn(2)
        let texts = rows.map { row in
            let time =
                isLines
                ? #""created_at":"\#(generator.oneIn(9) ? "9999-12-31T23:59:59.999Z" : "2026-01-02T03:04:05.678Z")""#
                : #""created_at_ms":\#(number(1_700_000_000_000))"#
            return
                #"{"sequence":\#(number(row.sequence)),"previous_hash":"\#(row.previousHash)","row_hash":"\#(row.rowHash)","#
                + #""population_id":"pop_1","run_id":"\#(row.runId)","round":\#(row.round),"attempt":\#(number(row.attempt)),"#
                + #""state":"\#(row.state)","event":\#(quoted(row.event)),"epsilon_after":0,\#(time),"#
                + #""format":\#(number(2)),"population_number":\#(number(row.populationNumber ?? 0)),"#
                + #""population_previous_hash":"\#(row.populationPreviousHash ?? "")"}"#
        }
        guard !isLines else { return Array(texts.joined(separator: "\n").utf8) }
        let delta = isWild && generator.oneIn(6) ? generator.pick([0, -1, 1, 1e300, 1e-300]) : 1e-5
        return Array(
            (#"{"schema":"martlet-ledger/2","population":"pop_1","name":"p","unit":"client","relation":"zero_out","#
                + #""budget":{"epsilon":8,"delta":\#(delta),"accountant":"auto"},"is_adaptive":false,"spent_epsilon":0,"#
                + #""reserved_epsilon":0,"remaining_epsilon":0,"rounds_that_fit":{},"participations":{},"#
                + #""head":"\#(rows.last?.rowHash ?? "")","rows":[\#(texts.joined(separator: ","))]}"#).utf8
        )
    }

    private static func head(_ generator: inout Xoshiro256StarStar) -> PopulationLedgerHead {
        PopulationLedgerHead(
            population: "pop_1",
            number: generator.pick([0, 1, 2, 1 << 40]),
            hash: LedgerChain.empty
        )
    }

    private static func record(_ rows: [LedgerRow], _ generator: inout Xoshiro256StarStar) -> [UInt8] {
        func number(_ usual: Int) -> Int { Self.number(&generator, usual, isWild: true) }
        let groups = rows.filter { !$0.runId.isEmpty }.map { row in
            #"{"population":"pop_1","run":"run_1","charge":\#(row.event),"count":\#(number(1))}"#
        }
        return Array(
            (#"{"sequence":\#(number(rows.count)),"rowHash":"\#(rows.last?.rowHash ?? "")","#
                + #""checkpoints":[{"sequence":\#(number(1)),"hash":"\#(rows.first?.rowHash ?? "")"}],"#
                + #""heads":[{"population":"pop_1","number":\#(number(1)),"hash":"\#(LedgerChain.empty)"}],"#
                + #""budgets":[{"population":"pop_1","epsilon":8}],"groups":[\#(groups.joined(separator: ","))]}"#).utf8
        )
    }
}
