import Coordination
import Foundation
import Tensors
import UpdateCompression
import WireFormat

/// Judges an update by its assignment's terms, reading it block by block.
enum UpdateAdmission {
    /// What an update stands for.
    struct Admitted {
        var exampleCount: Int
        var metrics: [String: Double]
    }

    /// Checks names, shapes, dtypes and metadata, then the values in one vectorised pass.
    ///
    /// - Returns: The number of examples that the update stands for, and the sums that came with it.
    /// - Throws: ``CoordinationError`` with a code that tells which rule was broken.
    static func check(_ path: String, _ terms: UploadTerms) throws -> Admitted {
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
            return Admitted(exampleCount: min(examples, terms.exampleCap), metrics: sums(file.metadata))
        } catch let error as UpdateFormatError {
            throw CoordinationError(.unprocessable, error.code, error.description)
        }
    }

    private static func checkMetadata(_ metadata: [String: String], _ terms: UploadTerms) throws -> Int {
        if let kind = metadata["kind"], kind != terms.kind {
            throw UpdateFormatError("kind_mismatch", "the run asks for kind '\(terms.kind)', not '\(kind.prefix(40))'")
        }
        if let base = metadata["base"], base != terms.baseSHA256 {
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
        guard let examples = Int(metadata["num_examples"] ?? "1"), (1...1_000_000_000).contains(examples) else {
            throw UpdateFormatError("metadata_invalid", "num_examples must be a whole number of 1 or more")
        }
        guard examples >= terms.minimumExamples else {
            throw UpdateFormatError(
                "too_few_examples",
                "the update stands for \(examples) examples; the run counts \(terms.minimumExamples) and more as enough"
            )
        }
        return examples
    }

    /// Decimal sums of metrics among the metadata; what is not one is not the server's business.
    private static func sums(_ metadata: [String: String]) -> [String: Double] {
        var result: [String: Double] = [:]
        for name in metadata.keys.sorted() where name != "num_examples" && result.count < MetricSums.nameLimit {
            guard let value = metadata[name].flatMap({ Double($0) }), MetricSums.admits(name, value) else { continue }
            result[name] = value
        }
        return result
    }
}
