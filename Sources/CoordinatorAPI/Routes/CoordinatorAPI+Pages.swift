import HTTPServing
import HTTPTypes
import WireFormat

extension CoordinatorAPI {
    /// The pages for people; they hold no data, so they need no token, and are there while the server recovers.
    static func addPageRoutes(to router: inout Router) {
        router.addPublic(Endpoints.dashboard) { request in
            WebPage.dashboard(language: WebPage.language(request.headers[.acceptLanguage]))
        }
        router.addPublic(Endpoints.reference) { _ in WebPage.reference() }
        router.addPublic(Endpoints.description) { _ in
            ServerResponse(
                status: 200,
                headers: [.contentType: "application/yaml; charset=utf-8", .cacheControl: "no-cache"],
                body: .bytes(Array(EmbeddedText.openapiYaml.utf8))
            )
        }
    }
}
