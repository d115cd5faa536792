import Foundation

/// `metrics.json`: what a trainer says about its work.
public struct TrainerReport: Equatable, Sendable {
    /// Examples that were trained on.
    public var examples = 0
    /// Targets but padding.
    public var tokens = 0
    /// Targets in the loss.
    public var lossTokens = 0
    /// Steps taken.
    public var steps = 0
    /// Negative log likelihood, nats.
    public var nll = 0.0
    /// Targets with the largest logit.
    public var hit1 = 0
    /// Targets among the three largest.
    public var hit3 = 0
    /// Whether the trainer was stopped before it was done.
    public var partial = false

    /// Examples, or tokens where no examples are counted; 1 at least.
    public var weight: Int { max(1, examples > 0 ? examples : tokens) }

    /// Reads the file; a megabyte at most.
    ///
    /// - Throws: ``ExternalTrainerError`` with rule `metrics`.
    init(path: String) throws {
        guard let size = try? FileManager.default.attributesOfItem(atPath: path)[.size] as? Int else {
            throw ExternalTrainerError(.metrics, "update/metrics.json was not written")
        }
        guard size <= 1 << 20, let data = FileManager.default.contents(atPath: path),
            let fields = (try? JSONSerialization.jsonObject(with: data)) as? [String: Any]
        else { throw ExternalTrainerError(.metrics, "update/metrics.json is not a JSON object of at most 1 MiB") }
        guard fields["schema"] as? Int == 1 else {
            throw ExternalTrainerError(.metrics, "update/metrics.json must have \"schema\": 1")
        }
        func count(_ name: String) throws -> Int {
            guard let value = fields[name] else { return 0 }
            guard let number = value as? Double, number >= 0, number <= 1e12, number == number.rounded() else {
                throw ExternalTrainerError(.metrics, "update/metrics.json: \(name) must be a whole number of 0 or more")
            }
            return Int(number)
        }
        examples = try count("examples")
        tokens = try count("tokens")
        lossTokens = try count("loss_tokens")
        steps = try count("steps")
        hit1 = try count("hit1")
        hit3 = try count("hit3")
        if let value = fields["nll"] {
            guard let number = value as? Double, number.isFinite else {
                throw ExternalTrainerError(.metrics, "update/metrics.json: nll must be a finite number")
            }
            nll = number
        }
        partial = fields["partial"] as? Bool ?? false
        guard examples > 0 || tokens > 0 else {
            throw ExternalTrainerError(.metrics, "update/metrics.json must count examples or tokens, more than 0")
        }
    }
}
