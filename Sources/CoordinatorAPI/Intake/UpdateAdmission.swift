import Coordination
import Foundation
import SecureAggregation
import Tensors
import UpdateCompression
import WireFormat

/// Judges an update by its assignment's terms, reading it block by block.
enum UpdateAdmission {
    /// What an update stands for.
    struct Admitted {
        var exampleCount: Int
        var metrics: [String: Double]
        /// Of the decoded values.
        var squaredNorm: Double?
        /// Of a masked update.
        var pseudonym: String?
    }

    /// Checks names, shapes, dtypes and metadata, then the values in one vectorised pass.
    ///
    /// - Returns: The number of examples that the update stands for, and the sums that came with it.
    /// - Throws: ``CoordinationError`` with a code that tells which rule was broken.
    static func check(_ path: String, _ terms: UploadTerms) throws -> Admitted {
        if let masked = terms.masked { return try check(path, masked) }
        do {
            let file = try UpdateFile(path: path, layout: terms.layout)
            guard file.encoding == terms.encoding else {
                throw UpdateFormatError(
                    "encoding_mismatch",
                    "the run asks for the encoding '\(terms.encoding.rawValue)', not '\(file.encoding.rawValue)'"
                )
            }
            let examples = try checkMetadata(file.metadata, terms)
            let squares = try file.check(bound: terms.valueBound)
            // Unbounded runs may hold values whose squares overflow single precision, never double.
            guard squares.isFinite else {
                throw UpdateFormatError("not_finite", "the update's norm is not finite")
            }
            try AnalyticsAdmission.check(path, terms.answer)
            return Admitted(
                exampleCount: min(examples, terms.exampleCap ?? .max),
                metrics: try sums(file.metadata, exampleCount: examples, terms),
                squaredNorm: squares
            )
        } catch let error as UpdateFormatError {
            throw CoordinationError(.unprocessable, error.code, error.description)
        }
    }

    /// Checks the form of a masked update: its length, and what comes before its words, which say nothing by themselves.
    private static func check(_ path: String, _ masked: MaskedUpdateFile) throws -> Admitted {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        defer { try? file.close() }
        let count = try file.seekToEnd()
        try file.seek(toOffset: 0)
        let prefix = try file.read(upToCount: masked.wordOffset) ?? Data()
        do throws(SecureAggregationError) {
            let entry = try masked.entry(prefix: Array(prefix), fileByteCount: Int(clamping: count))
            return Admitted(exampleCount: 1, metrics: [:], pseudonym: entry.pseudonym.hexadecimal)
        } catch {
            throw CoordinationError(.unprocessable, "tensor_mismatch", error.description)
        }
    }

    private static func checkMetadata(_ metadata: [String: String], _ terms: UploadTerms) throws -> Int {
        if let kind = metadata[UpdateMetadata.kind], kind != terms.kind.rawValue {
            throw UpdateFormatError("kind_mismatch", "the run asks for kind '\(terms.kind)', not '\(kind.prefix(40))'")
        }
        guard let base = metadata[UpdateMetadata.base] else {
            throw UpdateFormatError(
                "base_missing",
                "the update's metadata must name the model that it started from: base, the assignment's model.sha256"
            )
        }
        guard base == terms.baseSHA256 else {
            throw UpdateFormatError(
                "base_mismatch",
                "the update started from another model: base is \(base.prefix(80))"
            )
        }
        if terms.needsClippingBit, !["0", "1"].contains(metadata[UpdateMetadata.withinNorm] ?? "") {
            throw UpdateFormatError(
                "metadata_invalid",
                "the run's clipping norm follows a quantile: \(UpdateMetadata.withinNorm) must say whether the update's norm "
                    + "was within privacy.clipping.norm before it was clipped, 1 or 0"
            )
        }
        let examples = try count(metadata, terms)
        guard examples >= terms.minimumExamples else {
            throw UpdateFormatError(
                "too_few_examples",
                "the update stands for \(examples) examples; the run counts \(terms.minimumExamples) and more as enough"
            )
        }
        return examples
    }

    /// What the update stands for, in the run's unit: the two do not mix where they weigh.
    private static func count(_ metadata: [String: String], _ terms: UploadTerms) throws -> Int {
        let wanted = UpdateMetadata.count(terms.weightUnit)
        let other = UpdateMetadata.count(terms.weightUnit.other)
        if metadata[wanted] == nil, metadata[other] != nil, terms.weighsByCount {
            throw UpdateFormatError(
                "weight_unit_mismatch",
                "the update says \(other) and not \(wanted), which the run weighs by: aggregation.weight_unit is "
                    + terms.weightUnit.rawValue
            )
        }
        let name = metadata[wanted] == nil && metadata[other] != nil ? other : wanted
        // With privacy a device whose data gave nothing weighs 0.
        let least = min(1, terms.minimumExamples)
        guard let count = Int(metadata[name] ?? "1"), (least...UpdateMetadata.countLimit).contains(count) else {
            throw UpdateFormatError(
                "metadata_invalid",
                "\(name) must be a whole number from \(least) to \(UpdateMetadata.countLimit)"
            )
        }
        return count
    }

    /// Decimal sums of metrics among the metadata; what is not one is not the server's business.
    private static func sums(
        _ metadata: [String: String],
        exampleCount: Int,
        _ terms: UploadTerms
    ) throws -> [String: Double] {
        // Nobody keeps those of a private run.
        guard terms.judgesMetrics else { return [:] }
        let counts = WeightUnit.allCases.map(UpdateMetadata.count)
        var result: [String: Double] = [:]
        for name in metadata.keys.sorted() where !counts.contains(name) && result.count < MetricSums.nameLimit {
            guard let value = metadata[name].flatMap({ Double($0) }) else { continue }
            guard MetricSums.admits(name, value) else {
                guard MetricSums.isKnown(name) else { continue }
                throw implausible("\(name) is not finite or over 2^40")
            }
            result[name] = value
        }
        // Sums over examples are judged by what they say they are over; without it by the update's own count.
        if let fault = MetricSums.implausible(result, exampleCount: exampleCount) { throw implausible(fault) }
        return MetricSums.counted(result)
    }

    private static func implausible(_ fault: String) -> UpdateFormatError {
        UpdateFormatError("metrics_implausible", "the sums that came with the update cannot be: \(fault)")
    }
}
