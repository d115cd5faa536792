import ArgumentParser
import DifferentialPrivacy
import Foundation

struct PrivacyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "privacy",
        abstract: "What noise costs, what a budget allows, and whether a ledger adds up.",
        subcommands: [
            Epsilon.self, Delta.self, Calibrate.self, PrivacyPlan.self, PrivacyVerifyLedger.self,
            PrivacyCheckVectors.self,
        ]
    )

    struct Epsilon: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The epsilon of noisy rounds at a delta.")
        @OptionGroup var mechanism: MechanismOptions
        @Option(parsing: .unconditional, help: "The delta.") var delta = 1e-5

        func run() throws {
            try mechanism.report(at: ["delta": delta]) { accountant in
                (
                    "epsilon",
                    try LossAllowance.limited { () throws(PrivacyError) in try accountant.epsilon(delta: delta) }
                )
            }
        }
    }

    struct Delta: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "The delta of noisy rounds at an epsilon.")
        @OptionGroup var mechanism: MechanismOptions
        @Option(parsing: .unconditional, help: "The epsilon.") var epsilon: Double

        func run() throws {
            try mechanism.report(at: ["epsilon": epsilon]) { accountant in
                (
                    "delta",
                    try LossAllowance.limited { () throws(PrivacyError) in try accountant.delta(epsilon: epsilon) }
                )
            }
        }
    }

    struct Calibrate: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "The least noise multiplier for an epsilon and a delta."
        )
        @Option(parsing: .unconditional, help: "The epsilon.") var epsilon: Double
        @Option(parsing: .unconditional, help: "The delta.") var delta = 1e-5
        @Option(help: "Rounds that one client's data can be in.") var rounds = 1
        @Option(help: "Chance that a client is in a round; 1 claims no amplification.") var samplingRate = 1.0
        @Option(help: "gaussian, pld or rdp; default: gaussian without sampling, else pld.") var accountant: String?
        @Flag(help: "Print JSON.") var json = false

        func validate() throws { try PrivacyCommand.check(rounds: rounds) }

        /// The next number of four significant digits.
        private static func roundedUp(_ value: Double) -> Double {
            let scale = pow(10, 3 - floor(log10(value)))
            return (value * scale).rounded(.up) / scale
        }

        func run() throws {
            do {
                let kind = try PrivacyCommand.kind(accountant, samplingRate: samplingRate)
                let exact = try LossAllowance.limited { () throws(PrivacyError) in
                    try NoiseCalibration.noiseMultiplier(
                        epsilon: epsilon,
                        delta: delta,
                        samplingRate: samplingRate,
                        steps: rounds,
                        accountant: kind
                    )
                }
                // Rounded up to the digits that are shown: less noise would miss the target.
                let z = json ? exact : Self.roundedUp(exact)
                // What is reported is checked by the accountant that enforces, and by the one that always can.
                var values: [(String, Double)] = [("noise_multiplier", z)]
                for check in kind == .rdp ? [kind] : [kind, .rdp] {
                    let judge = try check.accountant(of: [(PrivacyCommand.event(samplingRate, z), rounds)])
                    values.append(("epsilon_\(check.rawValue)", try judge.epsilon(delta: delta)))
                }
                PrivacyCommand.show(values, json: json)
            } catch let error as PrivacyError {
                throw Failure(error)
            }
        }
    }

    static func kind(_ name: String?, samplingRate: Double) throws -> AccountantKind {
        guard let name else { return samplingRate == 1 ? .gaussian : .pld }
        guard let kind = AccountantKind(rawValue: name), kind != .basic else {
            throw ValidationError("the accountant must be gaussian, pld, rdp or zcdp, not \(name)")
        }
        return kind
    }

    static func check(rounds: Int) throws {
        guard (1...1_000_000_000).contains(rounds) else {
            throw ValidationError("--rounds must be 1 to 1,000,000,000, not \(rounds)")
        }
    }

    static func event(_ q: Double, _ z: Double) -> PrivacyEvent {
        q == 1 ? .gaussian(noiseMultiplier: z) : .poissonGaussian(samplingRate: q, noiseMultiplier: z)
    }

    /// One line of JSON with all digits, or a line with four of them for each value.
    static func show(_ values: [(String, Double)], json: Bool) {
        guard json else {
            for (name, value) in values { print("\(name)  \(Readable.significant(value))") }
            return
        }
        let fields = values.map { name, value in
            "\"\(name)\":\(value.isFinite ? "\(value)" : "null")"
        }
        print("{\(fields.joined(separator: ","))}")
    }
}

/// The noisy rounds that `epsilon` and `delta` judge.
struct MechanismOptions: ParsableArguments {
    @Option(parsing: .unconditional, help: "Noise standard deviation over the L2 sensitivity.")
    var noiseMultiplier: Double?
    @Option(parsing: .unconditional, help: "Laplace noise instead: its scale over the L1 sensitivity.")
    var laplaceScale: Double?
    @Option(help: "Rounds that one client's data can be in.") var rounds = 1
    @Option(help: "Chance that a client is in a round; 1 claims no amplification.") var samplingRate = 1.0
    @Option(help: "The only accountant to ask: gaussian, pld, rdp, filter, zcdp or basic.") var accountant: String?
    @Flag(help: "Print JSON.") var json = false

    func validate() throws {
        guard (noiseMultiplier == nil) != (laplaceScale == nil) else {
            throw ValidationError("give either --noise-multiplier or --laplace-scale")
        }
        try PrivacyCommand.check(rounds: rounds)
        if let accountant, AccountantKind(rawValue: accountant) == nil {
            throw ValidationError("the accountant must be gaussian, pld, rdp, filter, zcdp or basic, not \(accountant)")
        }
    }

    private var event: PrivacyEvent {
        if let laplaceScale { return .laplace(scale: laplaceScale) }
        return PrivacyCommand.event(samplingRate, noiseMultiplier ?? 0)
    }

    /// Prints the answer of every accountant that has a rule for the event; the tightest first.
    func report(
        at point: KeyValuePairs<String, Double>,
        _ ask: (any PrivacyAccountant) throws -> (String, Double)
    ) throws {
        let chosen = accountant.flatMap(AccountantKind.init(rawValue:))
        var rows: [(AccountantKind, String, Double)] = []
        do {
            for kind in chosen.map({ [$0] }) ?? AccountantKind.allCases {
                guard let judge = try judge(kind, isRequired: chosen != nil) else { continue }
                do {
                    let (name, value) = try ask(judge)
                    rows.append((kind, name, value))
                } catch let error as PrivacyError where chosen == nil && kind == .pld {
                    // The others still answer at a delta that loss distributions refuse.
                    printError("not by pld: \(error)")
                }
            }
        } catch let error as PrivacyError {
            throw Failure(error)
        }
        rows.sort { $0.2 < $1.2 }
        guard let best = rows.first else { return }
        guard json else {
            print("\(best.1)  \(Readable.significant(best.2))")
            for row in rows { print("  by \(row.0.rawValue)  \(Readable.significant(row.2))") }
            return
        }
        let byAccountant = rows.map { ("\($0.1)_\($0.0.rawValue)", $0.2) }
        PrivacyCommand.show([(best.1, best.2)] + point.map { ($0.key, $0.value) } + byAccountant, json: true)
    }

    /// The accountant with the events; `nil` when it has no rule for them and need not have one.
    private func judge(_ kind: AccountantKind, isRequired: Bool) throws -> (any PrivacyAccountant)? {
        do {
            return try kind.accountant(of: [(event, rounds)])
        } catch {
            if case .unsupportedEvent = error, !isRequired { return nil }
            throw error
        }
    }
}
