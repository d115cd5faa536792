import Coordination
import HTTPServing
import HTTPTypes

extension CoordinatorAPI {
    /// A run's vocabulary, for those who may read its models; it never changes, so its hash is its tag.
    func addTokenizerRoutes(to router: inout Router) {
        router.add("GET", "/v1/runs/{run}/tokenizer") { request in
            try await requireReader(request)
            let (document, sha256) = try await coordinator.tokenizer(run: request.parameters["run"] ?? "")
            let tag = "\"\(sha256)\""
            var headers: HTTPFields = [.eTag: tag, .cacheControl: "private, max-age=31536000, immutable"]
            if let known = request.headers[.ifNoneMatch], known == "*" || known.contains(tag) {
                return ServerResponse(status: 304, headers: headers)
            }
            headers[.contentType] = "application/json"
            if let name = ContentDigest.representationField { headers[name] = ContentDigest.text(hexadecimal: sha256) }
            return ServerResponse(status: 200, headers: headers, body: .bytes(Array(document)))
        }
    }
}
