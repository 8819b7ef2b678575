// A certified OpenID provider (oidc-provider) on loopback, with its development pages for login and consent.
// Prints its address once it listens, and ends when its input does.
import { createServer } from 'node:http';
import { once } from 'node:events';
import { errors, Provider } from 'oidc-provider';

const SCOPES = 'files:read files:write workspaces:read offline_access';
const ACCESS_SECONDS = 3600;

const listener = createServer();
listener.listen(0, '127.0.0.1');
await once(listener, 'listening');
const issuer = `http://127.0.0.1:${listener.address().port}`;

const client = (client_id, more) => ({
  client_id,
  application_type: 'native',
  redirect_uris: ['http://127.0.0.1/callback'],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  scope: SCOPES,
  ...more,
});

const provider = new Provider(issuer, {
  clients: [
    client('public', { token_endpoint_auth_method: 'none' }),
    client('confidential', {
      token_endpoint_auth_method: 'client_secret_basic',
      client_secret: process.env.OIDC_CLIENT_SECRET,
    }),
  ],
  scopes: SCOPES.split(' '),
  // Only with Basic: that a client's secret may be in the body is then not offered.
  clientAuthMethods: ['none', 'client_secret_basic'],
  pkce: { methods: ['S256'], required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: ACCESS_SECONDS, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600, DeviceCode: 600 },
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true, allowedPolicy: () => true },
    introspection: { enabled: true },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  cookies: { keys: ['only for tests'] },
});
listener.on('request', provider.callback());
console.log(issuer);

process.stdin.on('end', () => process.exit(0)).resume();
