/** Draws the schema of this very service; the validator badge of Swagger UI would ask a server elsewhere. */
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
