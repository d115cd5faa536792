import Coordination
import Foundation
import HTTPServing
import HTTPTypes
import UpdateCompression
import WireFormat

/// Models' files on their way out.
extension CoordinatorAPI {
    /// The files of a version: its weights, and what belongs to it beside them.
    func addDownloadRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.weights) { try await weights($0, $1, $2) }
        routes.add(Endpoints.optimizerState) { request, run, version in
            let version = try await coordinator.model(run: run.text, version: version.text)
            return try await companion(
                version.optimizerSha256,
                "the optimizer remembers nothing after this version",
                request
            )
        }
        routes.add(Endpoints.controlVariate) { request, run, version in
            let version = try await coordinator.model(run: run.text, version: version.text)
            return try await companion(version.controlSha256, "this version has no control variate", request)
        }
    }

    private func companion(
        _ sha256: String?,
        _ absence: String,
        _ request: ServerRequest
    ) async throws -> ServerResponse {
        guard let sha256 else { throw CoordinationError(.notFound, "not_found", absence) }
        try await verify(sha256, "a file that belongs to the version")
        let attributes = try FileManager.default.attributesOfItem(atPath: coordinator.blobs.path(sha256: sha256))
        return try bulk(sha256: sha256, byteCount: attributes[.size] as? Int ?? 0, request)
    }

    private func weights(
        _ request: ServerRequest,
        _ run: RunReference,
        _ named: VersionReference
    ) async throws -> ServerResponse {
        let encoding = try request.choice(
            "encoding",
            among: [.f32] + ModelVariant.encodings,
            default: UpdateEncoding.f32
        )
        let version = try await coordinator.model(run: run.text, version: named.text)
        guard named != .latest else {
            let query = encoding == .f32 ? "" : "?encoding=\(encoding.rawValue)"
            return ServerResponse(status: 307, headers: [.location: version.url + query])
        }
        let response = try await file(of: version, as: encoding, request)
        // Refused before it counts as sent.
        if let type = response.headers[.contentType] {
            try Self.requireAcceptable(type, AcceptField(request.headers[.accept]))
        }
        if request.method == "GET", let count = response.body.byteCount, count > 0 {
            await coordinator.noteDownload(run: version.run, version: version.version, byteCount: count)
        }
        return response
    }

    private func file(
        of version: ModelVersionView,
        as encoding: UpdateEncoding,
        _ request: ServerRequest
    ) async throws -> ServerResponse {
        guard encoding != .f32 else {
            try await verify(version)
            return try bulk(sha256: version.sha256, byteCount: version.bytes, request)
        }
        let variant = try await variant(
            of: version.sha256,
            Self.owner(of: version),
            as: encoding,
            isNeeded: coordinator.needsModel(run: version.run, version: version.version)
        )
        return try bulk(sha256: variant.sha256, byteCount: variant.byteCount, path: variant.path, request)
    }

    /// A model in fewer bits, made of a file that was hashed before.
    ///
    /// - Parameters:
    ///   - sha256: The model's hash.
    ///   - owner: What the model is for, in words.
    ///   - encoding: How it is written.
    ///   - isNeeded: Whether devices need it now: then its making waits for no other that callers ask for out of interest.
    /// - Returns: Its file.
    /// - Throws: ``CoordinationError`` as ``ModelVariants/file(of:at:as:isNeeded:)`` and the verification of the model do.
    func variant(
        of sha256: String,
        _ owner: String,
        as encoding: UpdateEncoding,
        isNeeded: Bool = true
    ) async throws -> ModelVariants.File {
        if try await !variants.isKnown(sha256, as: encoding) { try await verify(sha256, owner, isNeeded: isNeeded) }
        return try await variants.file(
            of: sha256,
            at: coordinator.blobs.path(sha256: sha256),
            as: encoding,
            isNeeded: isNeeded
        )
    }

    /// What a version's file is, in words.
    private static func owner(of version: ModelVersionView) -> String {
        "the model file of version \(version.version) of run \(version.run)"
    }

    /// Refuses a version whose file is not what was published; one that no device needs now is hashed behind those that they do.
    func verify(_ version: ModelVersionView) async throws {
        guard !coordinator.blobs.verifier.isVerified(coordinator.blobs.path(sha256: version.sha256)) else { return }
        try await verify(
            version.sha256,
            Self.owner(of: version),
            isNeeded: coordinator.needsModel(run: version.run, version: version.version)
        )
    }

    /// Refuses what is not the file of that hash; it is hashed when it is sent for the first time since the server started.
    func verify(_ sha256: String, _ owner: String, isNeeded: Bool = true) async throws {
        try await coordinator.blobs.verifier.verify(
            coordinator.blobs.path(sha256: sha256),
            sha256: sha256,
            owner: owner,
            isNeeded: isNeeded
        )
    }

    /// The safetensors file, whole or the range asked for; it never changes, so its hash is its tag.
    func bulk(
        sha256: String,
        byteCount: Int,
        path: String? = nil,
        _ request: ServerRequest
    ) throws -> ServerResponse {
        let tag = "\"\(sha256)\""
        if let wanted = request.headers[.ifMatch], !EntityTag.list(wanted, contains: tag, strong: true) {
            throw PreconditionError(tag: tag)
        }
        var headers: HTTPFields = [
            .eTag: tag, .acceptRanges: "bytes", .cacheControl: "private, max-age=31536000, immutable",
        ]
        if let known = request.headers[.ifNoneMatch], EntityTag.list(known, contains: tag) {
            return ServerResponse(status: 304, headers: headers)
        }
        headers[.contentType] = "application/vnd.safetensors"
        // Of the whole file, whatever part of it is the answer: who goes on with a cut download checks it by this.
        if let name = ContentDigest.representationField { headers[name] = ContentDigest.text(hexadecimal: sha256) }
        let path = path ?? coordinator.blobs.path(sha256: sha256)
        let rangeStillMeant = request.headers[.ifRange].map { $0 == tag } ?? true
        // Ranges are GET's alone (RFC 9110 section 14.2): HEAD speaks of the whole file.
        if request.method == "GET", let field = request.headers[.range], rangeStillMeant {
            switch ByteRange.parse(field, byteCount: byteCount) {
            case .whole: break
            case .unsatisfiable:
                headers[.contentRange] = "bytes */\(byteCount)"
                return ServerResponse(status: 416, headers: headers)
            case .part(let range):
                headers[.contentRange] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(byteCount)"
                return ServerResponse(status: 206, headers: headers, body: .file(path: path, range: range))
            }
        }
        if let name = ContentDigest.contentField { headers[name] = ContentDigest.text(hexadecimal: sha256) }
        return ServerResponse(status: 200, headers: headers, body: .file(path: path, range: 0..<byteCount))
    }
}
