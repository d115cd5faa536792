import Foundation
import MartletTransport
import StrictJSON
import WireFormat

/// `metrics.json`: what a trainer says about its work.
public struct TrainerReport: Equatable, Sendable {
    /// Examples that were trained on.
    public var examples = 0
    /// Targets but padding; examples where a trainer has no other targets.
    public var tokens = 0
    /// Targets in the loss.
    public var lossTokens: Int?
    /// Steps taken.
    public var steps = 0
    /// Negative log likelihood, nats; `nil` where it was not measured, as with the two counts below.
    public var nll: Double?
    /// Targets with the largest logit.
    public var hit1: Int?
    /// Targets among the three largest.
    public var hit3: Int?
    /// Whether the trainer was stopped before it was done.
    public var partial = false
    /// Metrics of the trainer's own, as sums over the examples.
    public var custom: [String: Double] = [:]

    /// Reads the file; a megabyte at most.
    ///
    /// - Throws: ``ExternalTrainerError`` with rule `metrics`.
    init(path: String) throws {
        guard let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int else {
            throw ExternalTrainerError(.metrics, "update/metrics.json was not written")
        }
        guard size <= 1 << 20, let data = try? PlainFile.contents(path) else {
            throw ExternalTrainerError(.metrics, "update/metrics.json has \(size) bytes, more than 1 MiB")
        }
        let document: JSONValue
        do { document = try JSONValue(parsing: Array(data)) } catch {
            let text = String(decoding: data, as: UTF8.self)
            let isNumber = ["NaN", "Infinity"].contains(where: text.contains)
            throw ExternalTrainerError(
                .metrics,
                "update/metrics.json: \(error)"
                    + (isNumber
                        ? "; JSON has no NaN and no Infinity: leave such a number out, or end with exit code 11" : "")
            )
        }
        guard document.objectValue != nil else {
            throw ExternalTrainerError(.metrics, "update/metrics.json is not a JSON object")
        }
        guard document.field("schema")?.integerValue == 1 else {
            throw ExternalTrainerError(.metrics, "update/metrics.json must have \"schema\": 1")
        }
        func count(_ name: String) throws -> Int? {
            guard let value = document.field(name) else { return nil }
            guard let number = value.integerValue, (0...UpdateMetadata.countLimit).contains(number) else {
                throw ExternalTrainerError(
                    .metrics,
                    "update/metrics.json: \(name) must be a whole number from 0 to 10^12"
                )
            }
            return number
        }
        examples = try count("examples") ?? 0
        lossTokens = try count("loss_tokens")
        steps = try count("steps") ?? 0
        hit1 = try count("hit1")
        hit3 = try count("hit3")
        // Where a trainer does not say how many targets there were, there were as many as it counted of any kind.
        tokens = try count("tokens") ?? [examples, lossTokens ?? 0, hit1 ?? 0, hit3 ?? 0].max() ?? 0
        if let value = document.field("nll") {
            guard let number = value.numberValue else {
                throw ExternalTrainerError(.metrics, "update/metrics.json: nll must be a finite number")
            }
            nll = number
        }
        partial = document.field("partial")?.booleanValue ?? false
        if let own = document.field("metrics") { custom = try Self.custom(own) }
        guard examples > 0 || tokens > 0 else {
            throw ExternalTrainerError(.metrics, "update/metrics.json must count examples or tokens, more than 0")
        }
    }

    private static func custom(_ document: JSONValue) throws -> [String: Double] {
        func fault(_ words: String) -> ExternalTrainerError {
            ExternalTrainerError(.metrics, "update/metrics.json: metrics " + words)
        }
        guard let fields = document.objectValue else { throw fault("must be an object of names and sums") }
        guard fields.count <= MetricSums.customLimit else {
            throw fault("has more than \(MetricSums.customLimit) names")
        }
        var sums: [String: Double] = [:]
        // Sorted, so that the same file has the same error each time.
        for (name, value) in fields.sorted(by: { $0.key < $1.key }) {
            let shown = PrintableText.escaped(name, limit: 80)
            guard let number = value.numberValue, MetricSums.admits(name, number) else {
                throw fault("'\(shown)' \(MetricSums.rule)")
            }
            guard MetricSums.mayBeCustom(name) else {
                throw fault("has '\(shown)', which the protocol uses itself: give it another name")
            }
            sums[name] = number
        }
        return sums
    }
}
