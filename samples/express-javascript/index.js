const express = require('express');

const app = express();

app.use(express.json());
app.get('/', (req, res) => res.send('Hello from Express\n'));
app.post('/echo', (req, res) => res.status(201).json(req.body));

app.listen(3000);
