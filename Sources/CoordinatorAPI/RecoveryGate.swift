package import HTTPServing
import HTTPTypes
import Synchronization
import WireFormat

/// Stands before the routes while the server recovers: the process answers, the pages say that it is starting, and
/// everything else is told to come again.
///
/// A client must never be told to drop work that recovery would have found, so nothing is answered from half a state.
package final class RecoveryGate: Sendable {
    private let opened = Mutex<Router?>(nil)
    private let waiting: Router

    package init() {
        var waiting = Router { _, request in Self.refusal(request) }
        CoordinatorAPI.addPageRoutes(to: &waiting)
        waiting.addImmediate(Endpoints.health.row.method.rawValue, Endpoints.health.template) { _ in
            try CoordinatorAPI.json(HealthView(status: "recovering"))
        }
        self.waiting = waiting
    }

    /// What the server is given: it answers by the routes as soon as they are there.
    package var router: Router {
        // What cannot be understood has its own answer, before and after recovery.
        var router = Router(errorHandler: ErrorMapping.response)
        router.current = { self.opened.withLock { $0 } ?? self.waiting }
        return router
    }

    /// Recovery is done.
    package func open(_ router: Router) { opened.withLock { $0 = router } }

    private static func refusal(_ request: ServerRequest?) -> ServerResponse {
        ErrorMapping.response(RecoveringError(), request)
    }
}

/// The server has not finished recovery.
struct RecoveringError: Error {}
