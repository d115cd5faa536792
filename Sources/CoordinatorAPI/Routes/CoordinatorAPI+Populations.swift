import Coordination
import HTTPServing
import WireFormat

extension CoordinatorAPI {
    /// Populations, their budgets and how clients come to them.
    func addPopulationRoutes(to routes: inout EndpointRoutes) {
        routes.add(Endpoints.createPopulation) { request in
            let body = try PopulationRequest.read(await Self.document(request))
            let population = try await step(request) { try $0.createPopulation(body) }
            return try Self.created(population, at: Endpoints.population(PopulationReference(population.id)))
        }
        routes.add(Endpoints.populations) { request in
            let (limit, cursor) = try request.page()
            return try await Self.list(coordinator.listPopulations(from: cursor ?? 0, limit: limit))
        }
        routes.add(Endpoints.population) { request, population in
            try Self.tagged(await coordinator.population(population.text), request)
        }
        routes.add(Endpoints.changeBudget) { request, population in
            let body = try BudgetChangeRequest.read(await Self.document(request))
            return try Self.json(
                await change(request, of: { try $0.population(population.text) }) {
                    try $0.changeBudget(population: population.text, body)
                }
            )
        }
        routes.addKnowingCaller(Endpoints.createEnrollmentToken) { request, staff, population in
            let body = try EnrollmentTokenRequest.read(await Self.document(request))
            let issued = try await step(request) {
                try $0.issueEnrollmentToken(population: population.text, body, by: staff.id)
            }
            return try Self.created(issued, at: Endpoints.token(TokenReference(issued.id)))
        }
    }
}
