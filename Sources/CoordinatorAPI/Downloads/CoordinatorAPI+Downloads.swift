import Coordination
import HTTPServing
import HTTPTypes
import UpdateCompression
import WireFormat

/// Models' files on their way out.
extension CoordinatorAPI {
    func addDownloadRoutes(to router: inout Router) {
        router.add("GET", "/v1/runs/{run}/models/{version}/weights") { try await weights($0) }
    }

    private func weights(_ request: ServerRequest) async throws -> ServerResponse {
        try await requireReader(request)
        let names = [UpdateEncoding.f32.rawValue] + ModelVariant.encodings.map(\.rawValue)
        let encoding = try request.choice("encoding", of: names)
        let version = try await model(request)
        guard request.parameters["version"] != "latest" else {
            let query = encoding == UpdateEncoding.f32.rawValue ? "" : "?encoding=" + encoding
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
        as encoding: String,
        _ request: ServerRequest
    ) async throws -> ServerResponse {
        guard let encoding = UpdateEncoding(rawValue: encoding), encoding != .f32 else {
            return try bulk(sha256: version.sha256, byteCount: version.bytes, request)
        }
        let path = coordinator.blobs.path(sha256: version.sha256)
        let variant = try await variants.file(of: version.sha256, at: path, as: encoding)
        return try bulk(sha256: variant.sha256, byteCount: variant.byteCount, path: variant.path, request)
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
