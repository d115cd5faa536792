import Coordination
import Crypto
import Foundation
import HTTPServing
import HTTPTypes
import Tensors
import UpdateCompression
import WireFormat

#if canImport(Glibc)
import Glibc
#endif

/// Takes a bulk body to a spool file: hashed while it is written, synced, its digest checked.
struct BodySpool {
    struct Received {
        var path: String
        var sha256: String
        var byteCount: Int
    }

    /// Streams the body; on any error the file is gone again.
    static func receive(_ request: ServerRequest, path: String, byteLimit: Int) async throws -> Received {
        let tooLarge = CoordinationError(.tooLarge, "too_large", "the body may have at most \(byteLimit) bytes")
        if let length = request.body.contentLength, length > byteLimit { throw tooLarge }
        let expected = try expectedDigest(request)
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw CoordinationError(.unavailable, "storage_failed", "the spool cannot be written; try again later")
        }
        var hash = SHA256()
        var count = 0
        do {
            defer { close(descriptor) }
            while let block = try await request.body.read() {
                count += block.count
                guard count <= byteLimit else { throw tooLarge }
                hash.update(data: block)
                try write(block, to: descriptor)
            }
            let digest = hash.finalize()
            if let expected, expected != Data(digest) {
                throw CoordinationError(
                    .unprocessable,
                    "digest_mismatch",
                    "the body's SHA-256 is not the one that Content-Digest names; send it again"
                )
            }
            guard fdatasync(descriptor) == 0 else {
                throw CoordinationError(
                    .unavailable,
                    "storage_failed",
                    "the spool could not be synced; try again later"
                )
            }
            return Received(path: path, sha256: Secrets.hexadecimal(digest), byteCount: count)
        } catch {
            unlink(path)
            throw error
        }
    }

    private static func write(_ block: [UInt8], to descriptor: Int32) throws {
        var offset = 0
        while offset < block.count {
            let written = block.withUnsafeBytes {
                Glibc.write(descriptor, $0.baseAddress.map { $0 + offset }, $0.count - offset)
            }
            if written < 0 && errno == EINTR { continue }
            guard written > 0 else {
                throw CoordinationError(
                    .unavailable,
                    "storage_failed",
                    "the spool is full or cannot be written; try again later"
                )
            }
            offset += written
        }
    }

    private static func expectedDigest(_ request: ServerRequest) throws -> Data? {
        guard let name = HTTPField.Name("Content-Digest"), let value = request.headers[name] else { return nil }
        for item in value.split(separator: ",") {
            let trimmed = item.trimmingCharacters(in: .whitespaces)
            guard trimmed.hasPrefix("sha-256=:"), trimmed.hasSuffix(":"), trimmed.count > 10 else { continue }
            guard let data = Data(base64Encoded: String(trimmed.dropFirst(9).dropLast())), data.count == 32 else {
                break
            }
            return data
        }
        throw ParseFailure(status: 400, detail: "Content-Digest must be sha-256=:BASE64:")
    }
}

/// Judges an update by its assignment's terms, reading it block by block.
enum UpdateAdmission {
    /// What an update stands for.
    struct Admitted {
        var exampleCount: Int
        var metrics: [String: Double]
    }

    /// Checks names, shapes, dtypes, values and metadata.
    ///
    /// - Returns: The number of examples that the update stands for, and the sums that came with it.
    /// - Throws: ``CoordinationError`` with a code that tells which rule was broken.
    static func check(_ path: String, _ terms: UploadTerms) throws -> Admitted {
        let metadata: [String: String]
        if terms.encoding == .f32 {
            let file = try SafetensorsFile(path: path)
            try checkTensors(file, terms)
            metadata = file.header.metadata
            try checkMetadata(metadata, terms)
            try checkValues(file, bound: terms.valueBound)
        } else {
            do {
                let file = try UpdateFile(path: path, layout: terms.layout)
                guard file.encoding == terms.encoding else {
                    throw UpdateFormatError(
                        "encoding_mismatch",
                        "the run asks for the encoding '\(terms.encoding.rawValue)', not '\(file.encoding.rawValue)'"
                    )
                }
                metadata = file.metadata
                try checkMetadata(metadata, terms)
                _ = try file.check(bound: terms.valueBound)
            } catch let error as UpdateFormatError {
                throw CoordinationError(.unprocessable, error.code, error.description)
            }
        }
        let examples = Int(metadata["num_examples"] ?? "1") ?? 1
        guard examples >= terms.minimumExamples else {
            throw CoordinationError(
                .unprocessable,
                "too_few_examples",
                "the update stands for \(examples) examples; the run counts \(terms.minimumExamples) and more as enough"
            )
        }
        return Admitted(exampleCount: min(examples, terms.exampleCap), metrics: sums(metadata))
    }

    private static func checkTensors(_ file: SafetensorsFile, _ terms: UploadTerms) throws {
        let expected = Dictionary(uniqueKeysWithValues: terms.layout.tensors.map { ($0.name, $0.shape) })
        for entry in file.header.entries {
            let name = entry.specification.name
            guard let shape = expected[name] else {
                throw CoordinationError(.unprocessable, "tensor_mismatch", "tensor '\(name)' is not one of the model's")
            }
            guard shape == entry.specification.shape else {
                throw CoordinationError(
                    .unprocessable,
                    "tensor_mismatch",
                    "tensor '\(name)' has shape \(entry.specification.shape), not \(shape)"
                )
            }
            guard entry.dataType == .float32 else {
                throw CoordinationError(
                    .unprocessable,
                    "tensor_mismatch",
                    "tensor '\(name)' has dtype \(entry.dataType.rawValue), not F32"
                )
            }
        }
        if let missing = terms.layout.tensors.first(where: { tensor in file.layout.range(of: tensor.name) == nil }) {
            throw CoordinationError(.unprocessable, "tensor_mismatch", "tensor '\(missing.name)' is missing")
        }
    }

    private static func checkMetadata(_ metadata: [String: String], _ terms: UploadTerms) throws {
        if let kind = metadata["kind"], kind != terms.kind {
            throw CoordinationError(
                .unprocessable,
                "kind_mismatch",
                "the run asks for kind '\(terms.kind)', not '\(kind)'"
            )
        }
        if let base = metadata["base"], base != terms.baseSHA256 {
            throw CoordinationError(
                .unprocessable,
                "base_mismatch",
                "the update started from another model: base is \(base)"
            )
        }
        guard let examples = Int(metadata["num_examples"] ?? "1"), (1...1_000_000_000).contains(examples) else {
            throw CoordinationError(
                .unprocessable,
                "metadata_invalid",
                "num_examples must be a whole number of 1 or more"
            )
        }
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

    private static func checkValues(_ file: SafetensorsFile, bound: Double) throws {
        var block = [Float](repeating: 0, count: min(1 << 16, file.layout.parameterCount))
        var start = 0
        while start < file.layout.parameterCount {
            let range = start..<min(file.layout.parameterCount, start + block.count)
            try file.read(range, into: &block)
            for index in 0..<range.count where !(Double(abs(block[index])) <= bound) {
                guard block[index].isFinite else {
                    throw CoordinationError(.unprocessable, "not_finite", "the update holds a NaN or an infinity")
                }
                throw CoordinationError(
                    .unprocessable,
                    "value_out_of_range",
                    "a value of the update is beyond the run's value_bound of \(bound)"
                )
            }
            start = range.upperBound
        }
    }
}
