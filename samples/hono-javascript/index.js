import { Hono } from 'hono';

const app = new Hono();

app.get('/', (c) => c.text('Hello from Hono\n'));
app.get('/users/:name', (c) => c.json({ name: c.req.param('name'), tags: c.req.queries('tag') ?? [] }));

export default app;
