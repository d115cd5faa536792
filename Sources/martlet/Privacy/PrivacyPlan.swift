import ArgumentParser
import Coordination
import CoordinatorAPI
import DifferentialPrivacy
import Foundation
import MartletOperator
import StrictJSON
import Tensors
import WireFormat

struct PrivacyPlan: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "What a run file will cost, how many rounds fit the budget, and how loud the noise is.",
        discussion:
            "Without a server: give the budget by --epsilon and --delta. With --from-server the population's own "
            + "budget and everything charged before are counted."
    )
    @OptionGroup var access: ServerAccess
    @Argument(help: "The run file, YAML or JSON.") var file: String
    @Option(help: "The budget's epsilon.") var epsilon: Double?
    @Option(help: "The budget's delta.") var delta = 1e-5
    @Option(help: "The model's parameters, for architecture external.") var parameters: Int?
    @Flag(help: "Count what the population on the server has been charged with.") var fromServer = false

    func validate() throws {
        if let parameters, !(1...1 << 40).contains(parameters) {
            throw ValidationError("--parameters must be between 1 and \(1 << 40)")
        }
    }

    func run() async throws {
        let specification = try DocumentFile.read(file, as: "a run file") {
            try RunSpecification.read($0, architectures: BuiltInModels.trained)
        }
        guard specification.privacy.mode != .none else {
            throw Failure("\(file) has privacy.mode none: it costs nothing and promises nothing")
        }
        let count = try parameters ?? BuiltInModels.initialModel(specification.model)?.layout.parameterCount
        var (budget, budgetDelta) = (epsilon, delta)
        var earlier: [CappedRelease] = []
        var account: PopulationAccount?
        if fromServer {
            let target = Endpoints.populationLedger(PopulationReference(specification.population))
                .with("format", "audit").answering(LedgerAuditDocument.self)
            let document = try await access.answer(to: target).decoded()
            (budget, budgetDelta) = (document.budget.epsilon, document.budget.delta)
            account = try document.account()
            earlier = try account?.releases() ?? []
        }
        do {
            let allowance = account?.failureAllowance(
                with: PrivacyCharge(of: specification, parameterCount: count ?? 0),
                of: "",
                delta: budgetDelta
            )
            let charge = PrivacyCharge(of: specification, parameterCount: count ?? 0)
            let given = specification
            let (earlierReleases, known) = (earlier, account)
            let (wanted, ownDelta) = (budget, budgetDelta)
            let projection = try LossAllowance.limited { () throws(PrivacyError) in
                let resolved = try PrivacyCalibration.resolve(
                    given,
                    parameterCount: count,
                    delta: ownDelta,
                    failureDelta: allowance
                )
                return try PrivacyProjection(
                    of: resolved,
                    parameterCount: count,
                    delta: ownDelta,
                    budget: wanted,
                    earlier: earlierReleases,
                    earlierCharges: known?.charges ?? [],
                    isAdaptive: !earlierReleases.isEmpty,
                    start: known?.start(with: charge)
                )
            }
            if access.json {
                Terminal.document(String(decoding: try WireCoding.encode(projection), as: UTF8.self))
            } else {
                show(projection)
                guard fromServer else { return }
                // How many clients there are, too, decides how many rounds come about.
                let type = file.hasSuffix(".json") ? "application/json" : "application/yaml"
                for line in await access.warnings(of: Data(try DocumentFile.bytes(file)), type) {
                    print(Terminal.printable(line))
                }
            }
        } catch let error as PrivacyError {
            throw Failure("\(file): \(error)")
        }
    }

    private func show(_ plan: PrivacyProjection) {
        func short(_ value: Double) -> String { Readable.significant(value) }
        print("mechanism            \(plan.mode) \(plan.mechanism), noise multiplier \(short(plan.noiseMultiplier))")
        if let threshold = plan.threshold {
            print("threshold            \(short(threshold)) votes, by their noised count")
        }
        print("rounds               \(plan.rounds), one client in at most \(plan.participations)")
        print(
            "epsilon              \(short(plan.epsilon)) at delta \(plan.delta) (\(plan.accountant)); "
                + "\(short(plan.epsilonRdp)) by rdp"
        )
        for row in plan.epsilonByRound { print("  after round \(row.round)  \(short(row.epsilon))") }
        if let total = plan.populationEpsilon { print("with earlier runs    \(short(total))") }
        if let budget = plan.budgetEpsilon {
            let end = plan.endingPart.map { "; then the budget's \($0) ends" } ?? ""
            print(
                "budget               \(short(budget)): \(plan.roundsThatFit) of \(plan.rounds) rounds fit the budget\(end)"
            )
        }
        let terms = plan.claim.terms(epsilon: short(plan.claim.epsilon))
        print("what is proven       \(terms), of everything that is released of the population by then")
        print("against whom         \(plan.claim.protection)")
        print("noise of the mean    \(short(plan.noiseOfMean)) a parameter (standard deviation)")
        if let ratio = plan.noiseToSignal {
            print("noise to signal      \(short(ratio)) when all updates have the clipping norm and agree")
        }
        if plan.mode == .central {
            print(
                "zeros                a device whose data give nothing sends zeros; the divisor stays cohort.goal, so each shrinks the mean by 1/goal"
            )
        }
    }
}
